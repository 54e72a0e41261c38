"""NT-Xent and its decoupled form by hand, and the metrics of an embedding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.objectives import simclr
from dnc.objectives.simclr import contrastive_metrics

nt_xent = jax.jit(simclr.nt_xent)
decoupled_nt_xent = jax.jit(simclr.decoupled_nt_xent)


def test_two_orthogonal_examples_by_hand():
    # Each anchor: positive cosine 1, two negatives of cosine 0; T = 1/2.
    views = jnp.asarray([[3.0, 0.0], [0.0, 0.2]])
    np.testing.assert_allclose(nt_xent(views, views, 0.5), math.log(math.e**2 + 2) - 2, rtol=1e-6)
    np.testing.assert_allclose(decoupled_nt_xent(views, views, 0.5), math.log(2) - 2, rtol=1e-6)


def test_opposite_views_by_hand():
    # Positive cosine -1; of the negatives one is the anchor's own direction (cosine 1), one its opposite (-1).
    first, second = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), jnp.asarray([[-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(nt_xent(first, second, 1.0), 1 + math.log(2 / math.e + math.e), rtol=1e-6)
    np.testing.assert_allclose(decoupled_nt_xent(first, second, 1.0), 1 + math.log(1 / math.e + math.e), rtol=1e-6)


@pytest.mark.parametrize("b", [2, 5, 32])
def test_collapsed_embeddings_give_the_log_of_the_number_of_candidates(b):
    same = jnp.ones((b, 4))
    np.testing.assert_allclose(nt_xent(same, same, 0.1), math.log(2 * b - 1), rtol=1e-5)
    np.testing.assert_allclose(decoupled_nt_xent(same, same, 0.1), math.log(2 * b - 2), rtol=1e-5)


def test_metrics_by_hand():
    views = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    metrics = contrastive_metrics(views, views)
    assert metrics["contrastive_accuracy"] == 1
    np.testing.assert_allclose(metrics["positive_similarity"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["negative_similarity"], 0.0, atol=1e-6)
    np.testing.assert_allclose(metrics["embedding_std"], 0.5 * math.sqrt(2), rtol=1e-6)
    assert contrastive_metrics(views, -views)["contrastive_accuracy"] == 0


def test_accuracy_is_chance_for_unrelated_views():
    first, second = (jax.random.normal(jax.random.key(i), (64, 16)) for i in range(2))
    assert contrastive_metrics(first, second)["contrastive_accuracy"] < 0.1
    np.testing.assert_allclose(contrastive_metrics(first, second)["embedding_std"], 1.0, atol=0.02)
