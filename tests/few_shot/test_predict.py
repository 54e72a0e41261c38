import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dnc.few_shot import distances, predict, skewed
from dnc.few_shot.measured import few_shot_error
from dnc.geometry.measure import pair_geometry
from tests.certificates.test_conditional import distance_moments
from tests.samples import clusters, stacked

K = 3
measure = functools.partial(pair_geometry, queries=True)


@functools.cache
def sample():
    return clusters(seed=1, n=240, k=K, d=6)


@functools.cache
def geometry():
    return measure(*sample(), num_classes=K)


def predicted(geometry, shots):
    return predict.predicted_error(geometry, shots)


def test_agrees_with_the_measured_error():
    """Within four standard errors of the measurement and .01, for skewed and anisotropic classes of unequal sizes."""
    shots = [1, 2, 3, 5, 10, 20]
    measured = few_shot_error(jax.random.key(0), *sample(), shots, 400, K)
    found, tolerance = predicted(geometry(), shots), 4 * np.asarray(measured.std)[:, None] / 20 + 0.01
    np.testing.assert_array_less(np.abs(found.mean - measured.mean), tolerance[:, 0])
    np.testing.assert_array_less(np.abs(found.per_class - measured.per_class), 3 * tolerance + np.zeros((1, K)))
    off = ~np.eye(K, dtype=bool)
    np.testing.assert_array_less(np.abs(found.per_pair - measured.per_pair)[:, off], 3 * tolerance + np.zeros((1, 6)))


def as_population(geometry):
    """The geometry whose moments are taken for the population's: no correction is left."""
    queries = dataclasses.replace(geometry.queries, left=jnp.full_like(geometry.queries.left, 1e9))
    return dataclasses.replace(geometry, counts=jnp.full_like(geometry.counts, 1e9), queries=queries)


def cumulants(geometry, m):
    shared, block = distances.shared(geometry), geometry.queries
    columns = distances.Columns(block, distances.own_class(block), None)
    return [np.asarray(x) for x in distances.distance_cumulants(columns, shared, jnp.full(len(geometry.counts), m))]


@pytest.mark.parametrize("m", [1.0, 2.0])
def test_mean_and_variance_of_distances_equal_the_enumeration_of_all_supports(m):
    rng = np.random.default_rng(0)
    classes = [np.float32(3 * rng.normal(size=2) + rng.exponential(size=(n, 2))) for n in (4, 5)]
    features, labels = stacked(classes)
    mean, variance, _ = cumulants(as_population(measure(features, labels, num_classes=2)), m)
    for row, x in enumerate(features):
        inside = row - int(labels[row]) * len(classes[0])
        pools = [np.delete(z, inside, axis=0) if c == labels[row] else z for c, z in enumerate(classes)]
        expected = np.array([distance_moments(np.float64(x), np.float64(pool), int(m)) for pool in pools])
        np.testing.assert_allclose(mean[row], expected[:, 0] - expected[labels[row], 0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(variance[row], expected[:, 1], rtol=1e-3)


@pytest.mark.parametrize("m", [2.0, 10.0])
def test_third_cumulants_are_those_of_normal_classes(m):
    """T = ||b - e||^2, e ~ N(0, S), S = Sigma/m, has the third cumulant 8 tr S^3 + 24 ||S b||^2."""
    rng = np.random.default_rng(0)
    scale = np.array([2.0, 1.0, 0.5])
    features = np.float32(rng.normal(size=(4000, 3)) * scale + np.repeat([[0.0], [4.0]], 2000, axis=0))
    _, variance, third = cumulants(measure(features, np.repeat([0, 1], 2000), num_classes=2), m)
    b = np.float64(features[:2000]) - features[2000:].mean(axis=0)
    sigma = np.diag(scale**2) / m
    expected = 8 * np.trace(sigma @ sigma @ sigma) + 24 * np.einsum("nd,de,ne->n", b, sigma @ sigma, b)
    skewness, wanted = third[:2000, 1] / variance[:2000, 1] ** 1.5, expected / variance[:2000, 1] ** 1.5
    assert abs(np.mean(skewness - wanted)) < 0.2 * np.mean(wanted)  # third moments of 256 references


def test_references_equal_loops_over_all_samples():
    rng = np.random.default_rng(1)
    classes = [np.float32(rng.normal(size=(9, 4)) * (1 + c) + c) for c in range(3)]
    features, labels = stacked(classes)
    block = measure(features, labels, num_classes=3).queries
    terms = block.references
    for row in (0, 5, 13, 26):
        x, own = np.float64(features[row]), labels[row]
        inside = row - own * 9
        pools = [np.float64(np.delete(z, inside, axis=0) if c == own else z) for c, z in enumerate(classes)]
        for c, pool in enumerate(pools):
            b, a = x - pool.mean(axis=0), pool - pool.mean(axis=0)
            np.testing.assert_allclose(block.cubic[row, c], np.mean((a @ b) ** 3), rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(block.mixed[row, c], np.mean((a @ b) ** 2 * np.sum(a**2, 1)), rtol=1e-3)
            smeared = np.sum((a.T @ (a @ b) / len(a)) ** 2)
            np.testing.assert_allclose(block.smeared[row, c], smeared, rtol=1e-3, atol=1e-3)
        distances = [np.sum((x - pool) ** 2, axis=1) for pool in pools]
        beyond = np.array([[np.mean(d > t) for t in distances[own]] for d in distances])
        rivals = [c for c in range(3) if c != own]
        np.testing.assert_allclose(terms.right[row, 0], np.mean(np.prod(beyond[rivals], axis=0)), rtol=1e-5)
        np.testing.assert_allclose(terms.farther[row, rivals, 0], beyond[rivals].mean(axis=1), rtol=1e-5)


def test_centroids_of_references_are_at_the_right_distance():
    """Of two and three shots: the share of pairs and triples, here of references that follow each other."""
    features, labels = sample()
    measured = few_shot_error(jax.random.key(1), features, labels, [2, 3], 600, K)
    weight = np.asarray(geometry().queries.weight)
    for index, m in enumerate((2, 3)):
        wrong = 1 - np.asarray(geometry().queries.references.right)[:, m - 1]
        ours = np.mean([np.sum((weight * wrong)[labels == c]) for c in range(K)])
        assert abs(ours - measured.mean[index]) < 0.015


def test_does_not_depend_on_position_scale_and_order_of_classes():
    features, labels = sample()
    order = np.array([2, 0, 1])
    moved = measure(100 + 7 * features, order[labels].astype(np.int32), num_classes=K)
    shots = [1, 5, math.inf]
    original, other = predicted(geometry(), shots), predicted(moved, shots)
    np.testing.assert_allclose(other.per_class[:, order], original.per_class, atol=2e-2)
    np.testing.assert_allclose(other.mean[1:], original.mean[1:], atol=1e-3)


def test_masked_samples_do_not_count():
    features, labels = sample()
    kept = np.arange(len(labels)) % 4 > 0
    masked = measure(features, labels, K, kept.astype(np.float32))
    expected = predicted(measure(features[kept], labels[kept], num_classes=K), [5, 20])
    np.testing.assert_allclose(predicted(masked, [5, 20]).per_class, expected.per_class, atol=2e-3)


def test_unequal_shots_move_the_error_of_their_class():
    equal, vector = predicted(geometry(), [5, [5, 5, 5]]), predicted(geometry(), [[5, 5, 40]])
    np.testing.assert_array_equal(equal.per_class[0], equal.per_class[1])
    assert vector.mean[0] < equal.mean[0]
    by_name = predict.predicted_error(geometry(), {"c": 40, "a": 5, "b": 5}, ["a", "b", "c"])
    np.testing.assert_array_equal(by_name.per_class, vector.per_class)
    assert (equal.shots, vector.shots) == ((5, 5), ((5, 5, 40),))


def test_two_classes_agree_in_closed_form_and_by_quadrature():
    features, labels = sample()
    two = labels < 2
    both = predicted(measure(features[two], labels[two], num_classes=2), [4, 10, 50])
    np.testing.assert_allclose(both.per_pair[:, [0, 1], [1, 0]], both.per_class, atol=1e-2)


def test_queries_average_to_classes():
    found = predict.predict_queries(geometry(), jnp.full(K, 10.0))
    weight, labels = np.asarray(geometry().queries.weight), sample()[1]
    mean = [np.sum(weight * np.where(labels == c, found.error, 0)) for c in range(K)]
    np.testing.assert_allclose(mean, predicted(geometry(), [10]).per_class[0], atol=1e-5)
    assert np.all(np.asarray(found.rival) != labels)


def test_classes_far_apart_are_never_confused_and_equal_ones_always():
    rng = np.random.default_rng(0)
    cloud = np.float32(rng.normal(size=(30, 3)))
    features, labels = stacked([cloud, cloud + 100, cloud + 100])
    found = predicted(measure(features, labels, num_classes=3), [1, 5, math.inf])
    np.testing.assert_allclose(found.per_class[:, 0], 0, atol=1e-6)
    assert np.all(found.per_class[:, 1:] > 0.4)


def test_says_what_is_missing_or_wrong():
    with pytest.raises(ValueError, match="queries=True"):
        predicted(pair_geometry(*sample(), num_classes=K), [5])
    with pytest.raises(ValueError, match="positive integer"):
        predicted(geometry(), [0])
    with pytest.raises(ValueError, match="one for each of 3 classes"):
        predicted(geometry(), [[1, 2]])


@pytest.mark.parametrize("skewness", [-1.0, -0.3, 0.0, 1e-5, 0.4, 1.0])
def test_the_transformation_is_inverted_and_has_its_moments(skewness):
    z = jnp.linspace(-2, 2, 9)
    s = jnp.full_like(z, skewness)
    np.testing.assert_allclose(skewed.normal_score(skewed.quantile(z, s), s), z, atol=2e-3)
    normal = jnp.asarray(np.random.default_rng(0).normal(size=200_000), jnp.float32)
    draws = np.asarray(skewed.quantile(normal, s[:1]))
    assert abs(draws.mean()) < 0.01
    assert abs(draws.std() - 1) < 0.02
    assert abs(np.mean((draws - draws.mean()) ** 3) - skewness) < 0.05 + 0.1 * abs(skewness)


def test_the_transformation_is_close_to_a_gamma_variable():
    shape = 2.0  # skewness 2 / sqrt(2)
    z = np.linspace(-1.5, 2.5, 9)
    exact = (scipy.stats.gamma.ppf(scipy.stats.norm.cdf(z), shape) - shape) / np.sqrt(shape)
    np.testing.assert_allclose(
        skewed.quantile(jnp.float32(z), jnp.full(9, np.float32(2 / np.sqrt(shape)))), exact, atol=0.04
    )
