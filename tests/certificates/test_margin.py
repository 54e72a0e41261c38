import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.certificates.margin import margin_covariance, margin_moments
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import PairGeometry
from tests import oracles_certificates as oracles
from tests.samples import stacked

moments_of = jax.jit(margin_moments)
covariance_of = jax.jit(margin_covariance)


def in_class_order(covariance: jax.Array, geometry: PairGeometry) -> np.ndarray:
    """[m, k, k-1, k-1] with the other classes by number instead of by nearness."""
    order = np.argsort(np.asarray(geometry.margin_terms.neighbors), axis=1)
    return np.stack([np.asarray(covariance)[:, i][:, by][:, :, by] for i, by in enumerate(order)], axis=1)


def tiny_classes(seed: int) -> list[np.ndarray]:
    """Three skewed classes of three points in the plane: small enough to enumerate every support."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(1, 2)) * 3 + rng.exponential(size=(3, 2)) ** 1.5 for _ in range(3)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_moments_equal_the_enumeration_of_all_supports_and_queries(seed):
    classes = tiny_classes(seed)
    with jax.enable_x64(True):
        geometry, shots = oracles.geometry(*stacked(classes)), jnp.array([1.0, 2.0])
        moments = moments_of(geometry, shots)
        covariance = in_class_order(covariance_of(geometry, moments, shots), geometry)
    mean, variance, d2 = map(np.asarray, (moments.mean, moments.variance, geometry.squared_distance))
    for s, m in enumerate([1, 2]):
        for i in range(3):
            rest = [j for j in range(3) if j != i]
            relative = oracles.enumerated_margins(classes, i, m)[:, rest] / d2[i, rest]
            np.testing.assert_allclose(mean[s, i, rest], relative.mean(axis=0), rtol=1e-10)
            np.testing.assert_allclose(variance[s, i, rest], relative.var(axis=0), rtol=1e-10)
            np.testing.assert_allclose(covariance[s, i], np.cov(relative.T, bias=True), rtol=1e-9, atol=1e-12)


def test_moments_match_monte_carlo_on_skewed_features(skewed):
    features, labels, classes = skewed
    geometry, shots = pair_geometry(features, labels, 3), jnp.array([1.0, 2, 5, 10, 50])
    moments = moments_of(geometry, shots)
    covariance = in_class_order(covariance_of(geometry, moments, shots), geometry)
    rng = np.random.default_rng(0)
    for s, size in enumerate([1, 2, 5, 10, 50]):
        margins = oracles.sampled_margins(rng, classes, 0, size, draws=120_000)[:, 1:]
        relative = margins / np.asarray(geometry.squared_distance)[0, 1:]
        np.testing.assert_allclose(moments.mean[s, 0, 1:], relative.mean(axis=0), rtol=0.02)
        np.testing.assert_allclose(covariance[s, 0], np.cov(relative.T), rtol=0.02)


def test_float32_matches_float64(skewed):
    features, labels, _ = skewed
    shots = jnp.array([1.0, 10.0, 100.0])
    actual = moments_of(pair_geometry(features, labels, 3), shots)
    with jax.enable_x64(True):
        expected = moments_of(oracles.geometry(features, labels), shots.astype(jnp.float64))
    np.testing.assert_allclose(actual.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(actual.variance, expected.variance, rtol=3e-5)


def test_two_points_by_hand():
    """Class 0 at 0, class 1 at 2 or 4, one shot: query 0 has margins 4, 16; query 1 has 4, 0, 16, 12. d^2 = 9."""
    geometry = oracles.geometry(np.array([[0.0], [0.0], [2.0], [4.0]]), np.array([0, 0, 1, 1]))
    moments = moments_of(geometry, jnp.array([1.0]))
    np.testing.assert_allclose(moments.mean[0] * 9, [[0, 10], [8, 0]], rtol=1e-6)
    np.testing.assert_allclose(moments.variance[0] * 81, [[0, 36], [40, 0]], rtol=1e-6)
    np.testing.assert_array_equal(moments.defined[0], [[False, True], [True, False]])


def test_coincident_means_are_undefined_and_finite():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [9.0, 1.0], [9.0, 2.0]])
    geometry = oracles.geometry(features, np.array([0, 0, 1, 1, 2, 2]))
    shots = jnp.array([1.0, 5.0])
    moments = moments_of(geometry, shots)
    assert not np.asarray(moments.defined)[:, [0, 1], [1, 0]].any()
    assert np.isfinite(moments.mean).all()
    assert np.isfinite(moments.variance).all()
    assert np.isfinite(covariance_of(geometry, moments, shots)).all()


@pytest.mark.parametrize("overlap", ["cauchy_schwarz", "trace"])
def test_cheaper_overlaps_only_add_variance(skewed, overlap):
    features, labels, _ = skewed
    shots = jnp.array([1.0, 5.0, 50.0])
    cheap, exact = (pair_geometry(features, labels, 3, overlap=name) for name in (overlap, "exact"))
    np.testing.assert_array_equal(cheap.margin_terms.neighbors, exact.margin_terms.neighbors)
    moments, expected = moments_of(cheap, shots), moments_of(exact, shots)
    assert np.all(moments.variance >= expected.variance * (1 - 1e-5))
    excess = covariance_of(cheap, moments, shots) - covariance_of(exact, expected, shots)
    smallest = np.linalg.eigvalsh(np.asarray(excess, np.float64)).min()
    assert smallest >= -1e-5 * float(jnp.abs(excess).max())


def test_a_geometry_without_margin_terms_has_no_certificates(skewed):
    features, labels, _ = skewed
    geometry = pair_geometry(features, labels, 3, overlap="none")
    with pytest.raises(ValueError, match="no margin terms"):
        certificate("exact_cantelli", geometry, [5])
