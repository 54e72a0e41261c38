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


def one_shot_error(classes: list[np.ndarray]) -> np.ndarray:
    """Of each class, over all queries and all single shots but the query; ties are errors."""
    per_class = []
    for i, members in enumerate(classes):
        wrong = []
        for index, x in enumerate(members):
            pools = [np.delete(z, index, axis=0) if c == i else z for c, z in enumerate(classes)]
            distance = [np.sum((pool - x) ** 2, axis=1) for pool in pools]
            right = [
                np.prod([np.mean(other > own) for c, other in enumerate(distance) if c != i]) for own in distance[i]
            ]
            wrong.append(1 - np.mean(right))
        per_class.append(np.mean(wrong))
    return np.array(per_class)


def on_a_grid(seed):
    """Few distinct points, so that many distances are equal and many rows the same."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2, (5, 3)) * np.float32(0.1) for _ in range(3)]


@pytest.mark.parametrize(
    "classes",
    [
        [np.eye(14)[:7] * 0.1, np.eye(14)[7:] * 0.1],
        [np.eye(6)[:3], np.eye(6)[3:]],
        [np.array([[0.0], [-1], [-1], [-1]]) / 3, np.full((3, 1), 1 / 3)],
        *map(on_a_grid, range(8)),
    ],
)
def test_ties_are_errors(classes):
    features, labels = stacked([np.float32(z) for z in classes])
    geometry = pair_geometry(features - features.mean(axis=0), labels, len(classes), queries=True)
    bound = certificate("exact_conditional", geometry, [1]).per_class[0]
    assert np.all(bound >= one_shot_error([*map(np.float64, map(np.float32, classes))]) - 1e-6)


@pytest.mark.parametrize("m", [1, 10**6])
def test_equal_distances_without_noise_are_certain_errors(m):
    """The query 0 lies between its own class at -1 and the rival at 1, both without variance."""
    features = np.array([[0.0], [-1], [-1], [-1], [1], [1], [1]], np.float32) / 3
    geometry = pair_geometry(features, np.repeat([0, 1], [4, 3]), 2, queries=True)
    assert certificate("exact_conditional", geometry, [m]).per_class[0, 0] >= 0.25


@pytest.mark.parametrize(("distance", "rtol"), [(1e3, 1e-3), (1e5, 0.02)])
def test_a_far_class_does_not_move_the_others_bounds(distance, rtol):
    rng = np.random.default_rng(1)
    classes = [np.float32(np.round(8 * rng.exponential(size=(5, 3)) + 12 * c)) / 8 for c in range(2)]
    classes = [*classes, classes[0] + np.float32(distance)]
    geometry = pair_geometry(*stacked(classes), 3, queries=True)
    expected = [enumerated_bound([*map(np.float64, classes)], m)[0] for m in (1, 3)]
    actual = certificate("exact_conditional", geometry, [1, 3]).per_class
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


def test_third_moments_of_a_far_class_are_about_its_mean():
    """The mean of 1e6 rounds by .03; about the rounded mean, the moment would be off by that times the variance."""
    rng = np.random.default_rng(0)
    near, far = (np.round(8 * rng.exponential(size=(50, 3))) / 8 for _ in range(2))
    far = far + 1e6
    queries = pair_geometry(*stacked([np.float32(near), np.float32(far)]), 2, queries=True).queries
    a = far - far.mean(axis=0)
    expected = (near - far.mean(axis=0)) @ np.mean(a * np.sum(a**2, axis=1)[:, None], axis=0)
    np.testing.assert_allclose(queries.skew[:50, 1], expected, rtol=0.01)


def test_a_pair_whose_means_coincide_counts_as_1():
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    features, labels = stacked([z, z, z + 10])
    bounds = certificate("exact_conditional", pair_geometry(features, labels, 3, queries=True), [5])
    assert bounds.per_pair[0, 0, 1] == bounds.per_pair[0, 1, 0] == 1
    np.testing.assert_array_equal(bounds.per_class[0, :2], 1)
    assert bounds.per_class[0, 2] < 0.1
