"""Directional collapse as a loss: the geometry's directional CDNV, its gradients, invariances, and collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dnc.objectives import directional_collapse
from dnc.objectives.directional_collapse import BOUNDS, DirectionalCollapse, directional_ratios
from dnc.objectives.vicreg import vicreg_terms
from tests import oracles

directional_loss = jax.jit(directional_collapse.directional_loss, static_argnames=("bound", "epsilon"))


def reference(first, second, bound="cantelli", epsilon=0.0):
    """The definition, pair by pair, in float64."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    b, p = first.shape
    pairs = [(i, j) for i in range(b) for j in range(b) if i != j]
    center = [(first[i] + second[i]) / 2 for i in range(b)]
    squared = {(i, j): float(np.sum((center[i] - center[j]) ** 2)) for i, j in pairs}
    floor = epsilon * sum(squared.values()) / len(pairs)
    total = 0.0
    for i, j in pairs:
        x = (float((first[i] - second[i]) @ (center[i] - center[j])) / (squared[i, j] + floor)) ** 2
        total += x / (1 + x) if bound == "cantelli" else x
    return p / 2 * total / len(pairs)


def embeddings(b=6, p=5, noise=0.5, seed=0):
    first = jax.random.normal(jax.random.key(seed), (b, p))
    return first, first + noise * jax.random.normal(jax.random.key(seed + 1), (b, p))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_matches_the_float64_loop(bound, epsilon):
    first, second = embeddings()
    expected = reference(first, second, bound, epsilon)
    np.testing.assert_allclose(directional_loss(first, second, bound, epsilon), expected, rtol=1e-5)
    with jax.enable_x64(True):
        exact = (jnp.asarray(np.asarray(x), "float64") for x in (first, second))
        np.testing.assert_allclose(directional_loss(*exact, bound, epsilon), expected, rtol=1e-10)


def test_ratios_are_four_times_the_directional_cdnv_of_two_samples_a_class():
    first, second = embeddings(b=7)
    features = np.stack([first, second], axis=1).reshape(14, -1)
    expected = 4 * oracles.pair_geometry(features, np.repeat(np.arange(7), 2))["directional_cdnv"]
    actual = directional_ratios(first, second, epsilon=1e-9)
    np.testing.assert_allclose(actual, np.nan_to_num(expected), rtol=1e-5, atol=1e-7)


def test_two_images_by_hand():
    # Centers (0, 0) and (2, 0). The first image's views differ by (1, 3), of which 1 is along the axis: x = (1*2)^2/16.
    first, second = jnp.array([[0.5, 1.5], [2.0, 0.0]]), jnp.array([[-0.5, -1.5], [2.0, 0.0]])
    np.testing.assert_allclose(directional_ratios(first, second, 1e-9), [[0.0, 0.25], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(directional_loss(first, second, "chebyshev", 1e-9), 0.125, rtol=1e-6)
    np.testing.assert_allclose(directional_loss(first, second, "cantelli", 1e-9), 0.1, rtol=1e-6)


@pytest.mark.parametrize("p", [16, 128])
def test_views_with_nothing_in_common_cost_about_one(p):
    first, second = (jax.random.normal(jax.random.key(seed), (256, p)) for seed in (3, 4))
    np.testing.assert_allclose(directional_loss(first, second, "chebyshev", 1e-9), p / (p - 2), rtol=0.05)


@pytest.mark.parametrize("bound", BOUNDS)
def test_rotating_translating_scaling_swapping_and_permuting_change_nothing(bound):
    first, second = embeddings(b=8)
    expected = directional_loss(first, second, bound)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0].astype("float32")
    order = np.random.default_rng(0).permutation(len(first))
    np.testing.assert_allclose(directional_loss(first @ rotation, second @ rotation, bound), expected, rtol=1e-5)
    np.testing.assert_allclose(directional_loss(first + 100.0, second + 100.0, bound), expected, rtol=1e-3)
    for scale in (1e-3, 1e3):
        np.testing.assert_allclose(directional_loss(scale * first, scale * second, bound), expected, rtol=1e-4)
    np.testing.assert_allclose(directional_loss(second, first, bound), expected, rtol=1e-5)
    np.testing.assert_allclose(directional_loss(first[order], second[order], bound), expected, rtol=1e-5)


def test_differences_across_every_axis_cost_nothing():
    first, second = embeddings(b=5, p=4, noise=0.0)
    outside = jnp.arange(5.0)[:, None]  # a dimension in which no centers differ
    first, second = jnp.concatenate([first, outside], axis=1), jnp.concatenate([second, -outside], axis=1)
    np.testing.assert_allclose(directional_loss(first, second), 0.0, atol=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
def test_gradients_match_finite_differences(bound):
    with jax.enable_x64(True):
        first, second = (jnp.asarray(np.asarray(x), "float64") for x in embeddings(b=4, p=3))
        check_grads(lambda a, b: directional_loss(a, b, bound), (first, second), order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("equal", [2, 6], ids=["two equal centers", "one center"])
def test_equal_centers_have_a_finite_loss_and_gradient(bound, equal):
    first, second = embeddings()
    center, difference = (first + second)[:1] / 2, (first - second)[:equal]
    first, second = (x.at[:equal].set(center + sign * difference / 2) for x, sign in ((first, 1), (second, -1)))
    value, gradients = jax.value_and_grad(directional_loss, argnums=(0, 1))(first, second, bound)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_a_pair_of_images_counts_at_most_once_under_cantelli():
    first, second = embeddings()
    first, second = first.at[1].set(first[0] + 1e-3), second.at[1].set(second[0])
    assert directional_loss(first, second, "chebyshev", 1e-6) > 10 * 5 / 2
    assert directional_loss(first, second, "cantelli", 1e-6) <= 5 / 2


def test_collapse_is_excluded():
    """Points, and lines, of equal views cost a positive amount; equal views in all directions, nothing."""
    objective = DirectionalCollapse()
    signs = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    def total(z):
        terms = vicreg_terms(z, z)
        regularized = objective.variance_weight * terms["variance"] + objective.covariance_weight * terms["covariance"]
        return float(objective.directional_weight * directional_loss(z, z) + regularized)

    np.testing.assert_allclose(total(signs), 0.0, atol=1e-5)
    assert total(jnp.zeros((4, 2))) > 20
    assert total(signs * jnp.array([[1.0, 0.0]])) > 10  # a line along an axis: a dimension does not vary
    assert total(signs[:, :1] + jnp.zeros((1, 2))) > 1  # a line across: the dimensions covary
    np.testing.assert_allclose(directional_loss(jnp.zeros((4, 2)), jnp.zeros((4, 2))), 0.0)  # it alone would not


def test_bfloat16_embeddings_are_compared_in_float32():
    first, second = (x.astype(jnp.bfloat16) for x in embeddings())
    loss = directional_loss(first, second)
    assert loss.dtype == jnp.float32
    expected = reference(first.astype(jnp.float32), second.astype(jnp.float32), epsilon=1e-4)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 2 examples in the batch, not 1"):
        directional_ratios(*embeddings(b=1))
    with pytest.raises(ValueError, match="bound='markov' is not known"):
        DirectionalCollapse(bound="markov")
    with pytest.raises(ValueError, match="bound='markov' is not known"):
        directional_loss(*embeddings(), bound="markov")
    with pytest.raises(ValueError, match="epsilon=0"):
        DirectionalCollapse(epsilon=0.0)
