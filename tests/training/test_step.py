"""Batches of views inside a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.training import step


def shows(*pictures):
    """A make_views that always shows these pictures."""
    views = jnp.stack([jnp.full((4, 2, 2, 3), picture) for picture in pictures])
    return lambda batch, key: {"views": views, "labels": {}}


@pytest.mark.parametrize(
    ("pictures", "difference"), [((0.5, 0.5), 0.0), ((0.5, 0.25), 0.25), ((0.5, 0.5, 0.0), 0.5), ((0.5,), np.inf)]
)
def test_the_largest_difference_of_views(pictures, difference):
    assert float(step.views_difference(shows(*pictures), {}, jax.random.key(0))) == difference


def test_micro_batches_hold_all_views_of_their_examples():
    examples = jnp.arange(6)
    batch = {
        "views": jnp.broadcast_to(examples[None, :, None, None, None], (2, 6, 4, 4, 3)),
        "local_views": jnp.broadcast_to(examples[None, :, None, None, None], (5, 6, 2, 2, 3)),
        "labels": {"class": examples},
        "tokens": jnp.broadcast_to(examples[:, None], (6, 7)),
        "progress": jnp.float32(0.25),
        "weights": {"of a user's objective": examples},
    }
    parts = step._micro_batches(batch, 2)
    assert parts["views"].shape == (2, 2, 3, 4, 4, 3)
    assert parts["local_views"].shape == (2, 5, 3, 2, 2, 3)
    assert parts["tokens"].shape == (2, 3, 7)
    assert parts.keys() == batch.keys()
    np.testing.assert_array_equal(parts["progress"], [0.25, 0.25])
    np.testing.assert_array_equal(parts["weights"]["of a user's objective"], parts["labels"]["class"])
    for part in range(2):
        np.testing.assert_array_equal(parts["tokens"][part, :, 0], parts["labels"]["class"][part])
        for name in ("views", "local_views"):
            np.testing.assert_array_equal(parts[name][part, 0, :, 0, 0, 0], parts["labels"]["class"][part])
