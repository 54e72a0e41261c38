import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.few_shot.draws import draw_support
from dnc.geometry.blocks import shuffled_classes

LABELS = np.random.default_rng(0).choice(4, 90, p=(0.1, 0.2, 0.3, 0.4)).astype(np.int32)
COUNTS = np.bincount(LABELS)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_draws_are_those_of_a_loop_over_classes(seed):
    """Bit for bit: the draws of a key are part of every result published with it."""
    key = jax.random.key(seed)
    noise = np.asarray(jax.random.uniform(key, LABELS.shape))
    rows = [np.flatnonzero(c == LABELS) for c in range(4)]
    expected = [members[np.argsort(noise[members])] for members in rows]
    order, rank = shuffled_classes(key, jnp.asarray(LABELS), jnp.asarray(COUNTS))
    np.testing.assert_array_equal(order, np.concatenate(expected))
    np.testing.assert_array_equal(np.asarray(rank)[np.concatenate(expected)], np.concatenate([*map(np.arange, COUNTS)]))
    support, ranks = draw_support(key, jnp.asarray(LABELS), jnp.asarray(COUNTS), 3)
    np.testing.assert_array_equal(support, [rows[:3] for rows in expected])
    np.testing.assert_array_equal(ranks, rank)


def test_a_draw_is_pinned():
    labels, counts = jnp.asarray([0, 1] * 5), jnp.asarray([5, 5])
    support, _ = draw_support(jax.random.key(0), labels, counts, 2)
    np.testing.assert_array_equal(support, [[6, 2], [5, 9]])
