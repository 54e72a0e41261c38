"""VICReg: hand-computed values, a float64 loop, gradients, invariants, and the constants people get wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dnc.objectives import vicreg
from dnc.objectives.vicreg import covariance_penalty, invariance, variance_hinge, vicreg_terms

vicreg_loss = jax.jit(vicreg.vicreg_loss)


def reference(first, second, weights=(25.0, 25.0, 1.0)):
    """The definition in float64 loops."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    b, p = first.shape
    mse = sum((first[i, j] - second[i, j]) ** 2 for i in range(b) for j in range(p)) / (b * p)
    hinge = penalty = 0.0
    for z in (first, second):
        mean = [sum(z[i, j] for i in range(b)) / b for j in range(p)]
        for j in range(p):
            for q in range(p):
                covariance = sum((z[i, j] - mean[j]) * (z[i, q] - mean[q]) for i in range(b)) / (b - 1)
                if j == q:
                    hinge += max(0.0, 1 - math.sqrt(covariance + 1e-4)) / p
                else:
                    penalty += covariance**2 / p
    return weights[0] * mse + weights[1] * hinge / 2 + weights[2] * penalty


def embeddings(b=6, p=4, scale=0.7):
    first = scale * jax.random.normal(jax.random.key(0), (b, p))
    return first, first + 0.3 * jax.random.normal(jax.random.key(1), (b, p))


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_matches_the_float64_loop(weights):
    first, second = embeddings()
    expected = reference(first, second, weights)
    np.testing.assert_allclose(vicreg_loss(first, second, *weights), expected, rtol=2e-6)
    with jax.enable_x64(True):
        exact = (jnp.asarray(np.asarray(x), "float64") for x in (first, second))
        np.testing.assert_allclose(vicreg_loss(*exact, *weights), expected, rtol=1e-12)


def test_terms_by_hand():
    # Columns (0.5, -0.5) and (0.3, -0.3): variances 1/2 and 0.18 with b - 1 = 1, covariance 0.3.
    z = jnp.asarray([[0.5, 0.3], [-0.5, -0.3]])
    hinge = (1 - math.sqrt(0.5001) + 1 - math.sqrt(0.1801)) / 2
    np.testing.assert_allclose(variance_hinge(z), hinge, rtol=1e-6)
    np.testing.assert_allclose(covariance_penalty(z), 2 * 0.3**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(invariance(z, z + 2.0), 4.0, rtol=1e-6)
    terms = vicreg_terms(z, z)
    np.testing.assert_allclose(terms["variance"], hinge, rtol=1e-6)  # the half of the sum over two views
    np.testing.assert_allclose(terms["covariance"], 2 * 0.3**2, rtol=1e-6)  # the sum, not the half
    np.testing.assert_allclose(vicreg_loss(z, z), 25 * hinge + 2 * 0.3**2, rtol=1e-6)


def test_collapse_costs_nearly_the_whole_variance_weight():
    same = jnp.ones((8, 3))
    np.testing.assert_allclose(vicreg_loss(same, same), 25 * (1 - 0.01), rtol=1e-6)


def test_white_embeddings_cost_nothing():
    signs = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert vicreg_loss(signs, signs) == 0


def test_variance_divides_by_b_minus_one():
    z = 0.4 * jax.random.normal(jax.random.key(2), (3, 5))
    biased = np.mean(np.maximum(0, 1 - np.sqrt(np.var(np.asarray(z), axis=0) + 1e-4)))
    assert float(variance_hinge(z)) < biased - 0.02


def test_gradients_match_finite_differences():
    with jax.enable_x64(True):
        first, second = (jnp.asarray(np.asarray(x), "float64") for x in embeddings(b=4, p=3))
        check_grads(vicreg_loss, (first, second), order=1, modes=["fwd", "rev"])


def test_the_gradient_at_collapse_is_finite():
    same = jnp.ones((4, 3))
    assert np.all(np.isfinite(jax.grad(vicreg_loss)(same, same)))


def test_swapping_views_permuting_examples_and_translating_change_nothing():
    first, second = embeddings()
    expected = vicreg_loss(first, second)
    order = np.random.default_rng(0).permutation(len(first))
    np.testing.assert_allclose(vicreg_loss(second, first), expected, rtol=1e-6)
    np.testing.assert_allclose(vicreg_loss(first[order], second[order]), expected, rtol=1e-6)
    np.testing.assert_allclose(vicreg_loss(first + 3.0, second + 3.0), expected, rtol=1e-5)
    np.testing.assert_allclose(vicreg_loss(first[:, ::-1], second[:, ::-1]), expected, rtol=1e-6)


def test_far_from_the_origin_the_covariance_does_not_cancel():
    first, second = embeddings(b=64, p=8)
    shifted = (first + 100.0, second + 100.0)
    np.testing.assert_allclose(vicreg_loss(*shifted), reference(*shifted), rtol=1e-4)


def test_bfloat16_embeddings_are_regularised_in_float32():
    first, second = (x.astype(jnp.bfloat16) for x in embeddings())
    loss = vicreg_loss(first, second)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(first.astype(jnp.float32), second.astype(jnp.float32)), rtol=2e-6)


def test_one_example_has_no_variance():
    with pytest.raises(ValueError, match="at least 2 examples in the batch, not 1"):
        vicreg_loss(*embeddings(b=1))
