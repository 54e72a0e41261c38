import itertools

import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.certificates.bounds import available
from dnc.geometry.measure import pair_geometry
from tests.certificates.test_validity import NOISES, SHOTS, random_classes
from tests.samples import stacked


def distance_moments(x: np.ndarray, pool: np.ndarray, m: int) -> tuple[float, float]:
    """Mean and variance of ||x - centroid||^2 over all m-tuples of the pool."""
    distances = [np.sum((x - np.mean(shots, axis=0)) ** 2) for shots in itertools.product(pool, repeat=m)]
    return float(np.mean(distances)), float(np.var(distances))


def cantelli(margin: float, variance: float) -> float:
    return variance / (variance + margin**2) if margin > 0 else 1.0


def enumerated_bound(classes: list[np.ndarray], m: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of classes and ordered pairs by enumeration of all supports without the query, in float64."""
    k = len(classes)
    per_class, per_pair = np.zeros(k), np.zeros((k, k))
    for i, members in enumerate(classes):
        for index, x in enumerate(members):
            pools = [np.delete(z, index, axis=0) if c == i else z for c, z in enumerate(classes)]
            mean, noise = np.array([distance_moments(x, pool, m) for pool in pools]).T
            rivals = [j for j in range(k) if j != i]
            terms = [cantelli(mean[j] - mean[i], noise[j] + noise[i]) for j in rivals]
            bounds = [1.0, sum(terms)]
            for t in mean[i] + np.arange(1, 10) / 10 * (mean[rivals].min() - mean[i]):
                beyond = [1 - cantelli(mean[j] - t, noise[j]) for j in rivals]
                bounds.append(1 - (1 - cantelli(t - mean[i], noise[i])) * np.prod(beyond))
            per_class[i] += min(bounds) / len(members)
            per_pair[i, rivals] += np.array(terms) / len(members)
    return per_class, per_pair


@pytest.mark.parametrize("k", [2, 3])
def test_matches_the_enumeration_of_all_supports(k):
    rng = np.random.default_rng(k)
    classes = [np.float32(rng.normal(size=2) * 3 + rng.exponential(size=(4 + c, 2)) ** 1.5) for c in range(k)]
    features, labels = stacked(classes)
    actual = certificate("exact_conditional", pair_geometry(features, labels, k, queries=True), [1, 2, 3])
    for s, m in enumerate([1, 2, 3]):
        per_class, per_pair = enumerated_bound([*map(np.float64, classes)], m)
        np.testing.assert_allclose(actual.per_class[s], per_class, rtol=1e-4)
        np.testing.assert_allclose(actual.per_pair[s], per_pair, rtol=1e-4)


def sampled_errors(rng, classes, m, draws):
    """Error of classes and of ordered pairs: shots drawn with replacement from the sample without the query."""
    k = len(classes)
    per_class, per_pair = np.zeros(k), np.zeros((k, k))
    for i, members in enumerate(classes):
        query = rng.integers(len(members), size=draws)
        distances = np.zeros((draws, k))
        for c, pool in enumerate(classes):
            shots = rng.integers(len(pool) - (c == i), size=(draws, m))
            shots += (shots >= query[:, None]) & (c == i)
            distances[:, c] = np.sum((members[query] - pool[shots].mean(axis=1)) ** 2, axis=1)
        wrong = distances <= distances[:, [i]]
        wrong[:, i] = False
        per_class[i], per_pair[i] = wrong.any(axis=1).mean(), wrong.mean(axis=0)
    return per_class, per_pair


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seed", range(2))
def test_measured_error_is_never_above(noise, seed):
    rng = np.random.default_rng(seed)
    classes = random_classes(rng, noise, k=4, n=40, d=5)
    bounds = certificate("exact_conditional", pair_geometry(*stacked(classes), 4, queries=True), SHOTS)
    for s, m in enumerate(SHOTS):
        for error, bound in zip(
            sampled_errors(rng, classes, m, 2000), (bounds.per_class[s], bounds.per_pair[s]), strict=True
        ):
            assert np.all(error <= bound + 5 * np.sqrt(error * (1 - error) / 2000) + 1e-6), (m, error, bound)


@pytest.mark.parametrize("seed", range(3))
def test_is_tighter_than_cantelli(seed):
    classes = random_classes(np.random.default_rng(seed), "gaussian", k=2, n=400, d=5)
    geometry = pair_geometry(*stacked(classes), 2, queries=True)
    conditional, cantelli = (
        certificate(name, geometry, [1, 5, 50, 500]) for name in ("exact_conditional", "exact_cantelli")
    )
    assert np.all(conditional.per_pair <= cantelli.per_pair * 1.02)
    assert conditional.bound[-1] < 0.9 * cantelli.bound[-1]


def test_with_many_shots_tends_to_the_error_of_the_class_means():
    rng = np.random.default_rng(0)
    features, labels = stacked([np.float32(rng.normal(size=(300, 4)) + 2 * rng.normal(size=4)) for _ in range(3)])
    means = np.stack([features[labels == c].mean(axis=0) for c in range(3)])
    own = [[np.delete(features[labels == c], i, axis=0).mean(axis=0) for i in range(300)] for c in range(3)]
    distances = ((features[:, None] - means) ** 2).sum(axis=2)
    distances[np.arange(900), labels] = ((features - np.concatenate(own)) ** 2).sum(axis=1)
    error = (distances.argmin(axis=1) != labels).mean()
    bound = certificate("exact_conditional", pair_geometry(features, labels, 3, queries=True), [10**7]).bound[0]
    assert 0.01 < error < 0.5
    np.testing.assert_allclose(bound, error, atol=0.005)


def test_masked_samples_do_not_count():
    features, labels = stacked(random_classes(np.random.default_rng(1), "skewed", k=4, n=40, d=5))
    keep = np.random.default_rng(2).random(160) < 0.7
    expected = certificate("exact_conditional", pair_geometry(features[keep], labels[keep], 4, queries=True), SHOTS)
    features[~keep] = np.nan
    masked = pair_geometry(features, labels, 4, weights=keep.astype(np.float32), queries=True)
    actual = certificate("exact_conditional", masked, SHOTS)
    np.testing.assert_allclose(actual.per_class, expected.per_class, rtol=1e-4)


def test_needs_queries():
    features, labels = stacked(random_classes(np.random.default_rng(0), "gaussian", k=4, n=60, d=5))
    geometry = pair_geometry(features, labels, 4)
    assert "exact_conditional" not in available(geometry)
    with pytest.raises(ValueError, match="queries=True"):
        certificate("exact_conditional", geometry, [5])
    with pytest.raises(ValueError, match="exact"):
        pair_geometry(features, labels, 4, overlap="trace", queries=True)


def test_a_far_query_does_not_overflow():
    features, labels = stacked(random_classes(np.random.default_rng(0), "gaussian", k=4, n=40, d=5))
    geometries = [pair_geometry(scale * features, labels, 4, queries=True) for scale in (1e6, 1)]
    bounds = [certificate("exact_conditional", geometry, SHOTS).bound for geometry in geometries]
    np.testing.assert_allclose(*bounds, rtol=1e-4)
