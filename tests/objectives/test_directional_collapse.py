"""Directional collapse as a loss: the geometry's directional CDNV, values by hand, and collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.objectives import directional_collapse
from dnc.objectives.directional_collapse import BOUNDS, DirectionalCollapse, directional_ratios
from dnc.objectives.vicreg import vicreg_terms
from tests import oracles
from tests.objectives.test_pairwise import embeddings

directional_loss = jax.jit(directional_collapse.directional_loss, static_argnames=("bound", "epsilon"))


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


def test_differences_across_every_axis_cost_nothing():
    first = second = embeddings(b=5, p=4)[0]
    outside = jnp.arange(5.0)[:, None]  # a dimension in which no centers differ
    first, second = jnp.concatenate([first, outside], axis=1), jnp.concatenate([second, -outside], axis=1)
    np.testing.assert_allclose(directional_loss(first, second), 0.0, atol=1e-6)


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


def test_an_unknown_bound_is_refused():
    with pytest.raises(ValueError, match="bound='markov' is not known"):
        directional_loss(*embeddings(), bound="markov")
