import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry.collapse import nearest_center_disagreement, neural_collapse, self_duality
from tests.samples import clusters

K = 4


def oracle(features, labels):
    """NC1 by explicit covariance matrices and pseudo-inverse; NC2 by loops over classes."""
    x = features.astype(np.float64)
    means = np.stack([x[labels == c].mean(axis=0) for c in range(K)])
    within = sum(np.outer(z - means[c], z - means[c]) for z, c in zip(x, labels, strict=True)) / len(x)
    m = means - means.mean(axis=0)
    between = sum(np.outer(row, row) for row in m) / K
    norms = np.linalg.norm(m, axis=1)
    cosines = [m[i] @ m[j] / norms[i] / norms[j] for i in range(K) for j in range(i)]
    return [
        np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K,
        norms.std() / norms.mean(),
        np.std(cosines),
        np.mean(np.abs(np.array(cosines) + 1 / (K - 1))),
    ]


def fields(result):
    return [result.within_class_variability, result.norm_variation, result.angle_variation, result.simplex_deviation]


def simplex():
    return (np.eye(K) - 1 / K).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_matches_float64_oracle(offset):
    features, labels = clusters(seed=1, n=400, k=K, d=9, offset=offset)
    np.testing.assert_allclose(fields(neural_collapse(features, labels, K)), oracle(features, labels), rtol=1e-4)


def test_is_zero_at_a_simplex_without_spread():
    labels = np.repeat(np.arange(K), 5).astype(np.int32)
    np.testing.assert_allclose(fields(neural_collapse(simplex()[labels] + 3, labels, K)), 0, atol=1e-5)


def test_within_class_variability_of_a_hand_computed_case():
    # means +-2 on the first axis, Sigma_B = 4 e e^T, variance 1 along it and 9 across: tr = 1/4, over k = 2
    features = np.array([[s * 2 + a, b] for s in (-1, 1) for a in (-1, 1) for b in (-3, 3)], np.float32)
    labels = np.repeat([0, 1], 4).astype(np.int32)
    assert neural_collapse(features, labels, 2).within_class_variability == pytest.approx(1 / 8)


def test_coincident_means_have_no_collapse():
    features = np.array([[-1.0], [1.0], [-1.0], [1.0]], np.float32)
    result = neural_collapse(features, np.array([0, 0, 1, 1], np.int32), 2)
    assert np.isnan(fields(result)[:2]).all()


def test_rotation_translation_and_scale_change_nothing():
    features, labels = clusters(seed=2, n=300, k=K, d=8)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    moved = (5 * features @ rotation + 7).astype(np.float32)
    expected = fields(neural_collapse(features, labels, K))
    np.testing.assert_allclose(fields(neural_collapse(moved, labels, K)), expected, rtol=1e-4)


def test_self_duality_is_zero_for_parallel_and_two_for_opposed_classifiers():
    means = jnp.asarray(simplex()) + 2.0
    assert self_duality(means, 3 * simplex()) == pytest.approx(0, abs=1e-6)
    assert self_duality(means, -simplex()) == pytest.approx(2, abs=1e-6)


def test_disagreement_counts_samples_off_their_nearest_center():
    means = np.array([[0.0], [4.0]], np.float32) + 1e4
    features = np.array([[1.0], [3.0], [1.5], [5.0]], np.float32) + 1e4  # nearest: 0, 1, 0, 1
    assert nearest_center_disagreement(features, means, np.array([0, 1, 1, 1])) == 0.25


@pytest.mark.parametrize("separation", [10, 0.01])
def test_collinear_means_have_one_direction(separation):
    """Means on a line, inside clouds that may dwarf it: what rounding leaves of other directions does not count."""
    rng = np.random.default_rng(0)
    labels, axis = np.arange(2000) % 10, np.ones(64) / 8
    noise = rng.normal(size=(2000, 64))
    noise -= np.stack([noise[labels == c].mean(axis=0) for c in range(10)])[labels]
    features = (separation * labels[:, None] * axis + noise).astype(np.float32)
    expected = np.mean((noise @ axis) ** 2) / np.sum((separation * (np.arange(10) - 4.5)) ** 2)
    result = neural_collapse(features, labels, 10).within_class_variability
    np.testing.assert_allclose(result, expected, rtol=1e-3)
