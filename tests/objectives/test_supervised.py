"""Cross-entropy with label smoothing, and both views counted as labeled images."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from dnc.objectives.supervised import ClassifierNetwork, Supervised, cross_entropy


def reference(logits, labels, smoothing):
    logits, labels, total = np.asarray(logits, np.float64), np.asarray(labels), 0.0
    n, k = logits.shape
    for i in range(n):
        partition = sum(math.exp(logits[i, c]) for c in range(k))
        for c in range(k):
            target = (1 - smoothing) * (c == labels[i]) + smoothing / k
            total -= target * math.log(math.exp(logits[i, c]) / partition)
    return total / n


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_matches_the_float64_loop(smoothing):
    logits, labels = 3 * jax.random.normal(jax.random.key(0), (7, 5)), jnp.arange(7) % 5
    np.testing.assert_allclose(
        cross_entropy(logits, labels, smoothing), reference(logits, labels, smoothing), rtol=2e-6
    )


def test_by_hand():
    logits = jnp.log(jnp.asarray([[1.0, 3.0], [1.0, 1.0]]))
    expected = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    np.testing.assert_allclose(cross_entropy(logits, jnp.asarray([1, 0])), expected, rtol=1e-6)


def test_huge_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.asarray([1])), 2e4, rtol=1e-6)


def test_gradients_match_finite_differences():
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
        labels = jnp.asarray([0, 2, 1, 1])
        check_grads(jax.jit(lambda x: cross_entropy(x, labels, 0.1)), (logits,), order=1)


class Fixed(ClassifierNetwork):
    """A network whose answer is given."""

    def __init__(self, outputs):
        self.outputs = nnx.data(outputs)

    def __call__(self, views, *, train):
        return self.outputs


def test_both_views_are_labeled_images():
    views = jnp.log(jnp.asarray([[[1.0, 3.0], [3.0, 1.0]], [[1.0, 1.5], [1.0, 4.0]]]))  # right, right, right, wrong
    batch = {"views": jnp.zeros((2, 2, 1, 1, 3)), "labels": {"color": jnp.asarray([1, 0])}}
    loss, metrics = Supervised(task="color", num_classes=2).loss(Fixed(views), batch, jax.random.key(0))
    np.testing.assert_allclose(loss, -np.mean(np.log([3 / 4, 3 / 4, 1.5 / 2.5, 1 / 5])), rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 3 / 4, rtol=1e-6)
