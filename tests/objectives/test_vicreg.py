"""VICReg: hand-computed values, and the constants people get wrong."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from dnc.objectives import vicreg
from dnc.objectives.vicreg import covariance_penalty, invariance, variance_hinge, vicreg_terms
from tests.objectives.test_pairwise import embeddings, vicreg_reference

vicreg_loss = jax.jit(vicreg.vicreg_loss)


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


def test_far_from_the_origin_the_covariance_does_not_cancel():
    first, second = embeddings(b=64, p=8)
    shifted = (first + 100.0, second + 100.0)
    np.testing.assert_allclose(
        vicreg_loss(*shifted), vicreg_reference(*(np.asarray(x, np.float64) for x in shifted)), rtol=1e-4
    )
