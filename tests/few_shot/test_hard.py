"""Hard samples: swapped labels are found, and the probabilities are those of centroids that are drawn."""

import dataclasses

import numpy as np
import pytest

import dnc
from dnc.few_shot.hard import hard_samples

CLASSES = ("ant", "bee", "cat", "dog")
SWAPPED, BETWEEN = 60, 30


@pytest.fixture(scope="module")
def swapped():
    """Four skewed clusters far apart, some labels swapped, some samples midway between two clusters, which are in
    doubt but not doubtful: features, labels, rows of the swapped, what these are, and rows of those between.
    """
    rng = np.random.default_rng(0)
    n, d = 1200, 8
    truth = rng.permutation(np.arange(n) % 4)
    skew = np.eye(d) + 0.3 * rng.normal(size=(d, d))
    rows, between = np.split(rng.permutation(n)[: SWAPPED + BETWEEN], [SWAPPED])
    centers = 6 * np.eye(4, d)[truth]
    centers[between] = (centers[between] + 6 * np.eye(4, d)[(truth[between] + 1) % 4]) / 2
    noise = np.where(np.isin(np.arange(n), between), 0.1, 0.8)[:, None] * (rng.gamma(4, 0.5, (n, d)) - 2) @ skew
    labels = truth.copy()
    labels[rows] = (truth[rows] + rng.integers(1, 4, SWAPPED)) % 4
    return (centers + noise).astype(np.float32), labels, np.sort(rows), truth[np.sort(rows)], np.sort(between)


@pytest.fixture(scope="module")
def analysis(swapped):
    features, labels, *_ = swapped
    names = np.array(CLASSES)[labels]
    return dnc.analyze(features, names, ids=[f"image {row}" for row in range(len(labels))])


def test_the_doubtful_samples_are_those_with_swapped_labels(analysis, swapped):
    _, labels, rows, truth, _ = swapped
    found = analysis.hard_samples(shots=10, top=None)
    np.testing.assert_array_equal(np.sort(found.rows[found.doubtful]), rows)
    worst = analysis.hard_samples(shots=10, top=SWAPPED)
    assert set(worst.rows) == set(rows)
    assert np.all(worst.doubtful)
    at = np.searchsorted(rows, worst.rows)
    assert worst.suggested == tuple(CLASSES[c] for c in truth[at])
    assert worst.label == tuple(CLASSES[c] for c in labels[worst.rows])


@pytest.mark.parametrize("shots", [1, 3, 10, 1000])
def test_the_hardest_come_first(analysis, swapped, shots):
    found = analysis.hard_samples(shots, top=None)
    assert len(found) == len(swapped[1])
    assert sorted(found.rows) == list(range(len(found)))
    assert np.all(np.diff(found.error) <= 0)
    assert np.all((found.error >= 0) & (found.error <= 1))


def test_many_shots_leave_an_order_among_the_certain(analysis, swapped):
    """With 10,000 shots errors of nearly all samples round to 0 or 1: the swapped still come first, taken for the
    right classes, and the samples midway, whose order is the same as that of few shots, follow.
    """
    _, _, rows, truth, between = swapped
    found = analysis.hard_samples(10_000, top=None)
    assert np.sum(found.error == 1) > len(rows)
    assert set(found.rows[:SWAPPED]) == set(rows)
    at = np.searchsorted(rows, found.rows[:SWAPPED])
    assert found.suggested[:SWAPPED] == tuple(CLASSES[c] for c in truth[at])
    assert set(found.rows[SWAPPED : SWAPPED + BETWEEN]) <= set(between) | set(rows)


@pytest.mark.parametrize("shots", [1, 10])
def test_where_no_rule_errs_the_rival_is_the_class_that_comes_nearest(shots):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    features = 100 * labels[:, None] + rng.normal(size=(48, 3))  # on a line
    found = dnc.analyze(features, labels, shots=[1]).task.hard_samples(shots, top=None)
    np.testing.assert_array_equal(found.error, 0)
    assert {abs(int(own) - int(rival)) for own, rival in zip(found.label, found.suggested, strict=True)} == {1}


def test_doubtful_samples_are_a_hundred_times_as_likely_in_the_suggested_class(analysis, swapped):
    features, labels = swapped[0].astype(np.float64), swapped[1]
    found = analysis.hard_samples(10, top=None)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(4)])
    for row, suggested, doubtful in zip(found.rows, found.suggested, found.doubtful, strict=True):
        own, other = labels[row], CLASSES.index(suggested)
        axis = means[own] - means[other]
        variance = np.mean([np.var(features[labels == c] @ axis) for c in (own, other)])
        without = (means[own] * np.sum(labels == own) - features[row]) / (np.sum(labels == own) - 1)
        squares = [np.sum((features[row] - mean) ** 2) for mean in (without, means[other])]
        # Of two normal densities that differ in their means, along the axis from the point midway.
        ratio = (squares[0] - squares[1]) / 2 * np.sum(axis**2) / variance
        assert doubtful == (ratio >= np.log(100)) or abs(ratio - np.log(100)) < 0.01


def test_who_is_doubtful_does_not_depend_on_the_shots(analysis, swapped):
    for shots in (1, 10_000):
        found = analysis.hard_samples(shots, top=None)
        np.testing.assert_array_equal(np.sort(found.rows[found.doubtful]), swapped[2])


def test_errors_are_those_that_predictions_average(analysis, swapped):
    found = analysis.hard_samples(5, top=None)
    predicted = analysis.predicted_error([5])
    labels = np.array(found.label)
    by_class = [found.error[labels == name].mean() for name in CLASSES]
    np.testing.assert_allclose(by_class, np.asarray(predicted.per_class)[0], rtol=1e-4)


def test_top_is_the_head_of_all(analysis):
    every, few = (analysis.hard_samples(10, top) for top in (None, 7))
    assert len(few) == 7
    assert len(analysis.hard_samples()) == 20
    assert len(analysis.hard_samples(top=10**6)) == len(every)
    for name in ("rows", "error", "doubtful", "label", "suggested", "ids"):
        np.testing.assert_array_equal(getattr(few, name), getattr(every, name)[:7], err_msg=name)


def test_ids_follow_their_rows(analysis, swapped):
    found = analysis.hard_samples(top=5)
    assert found.ids == tuple(f"image {row}" for row in found.rows)
    table = found.to_pandas()
    assert list(table) == ["id", "row", "label", "suggested", "error", "doubtful"]
    assert list(table["id"]) == list(found.ids)
    without = dnc.analyze(*swapped[:2]).hard_samples(top=5)
    assert without.ids is None
    assert list(without.to_pandas()) == ["row", "label", "suggested", "error", "doubtful"]
    np.testing.assert_array_equal(without.rows, found.rows)


def test_unequal_shots_by_class(analysis):
    by_name = analysis.hard_samples({"ant": 1, "bee": 2, "cat": 30, "dog": 5}, top=None)
    in_order = analysis.hard_samples([1, 2, 30, 5], top=None)
    np.testing.assert_array_equal(by_name.rows, in_order.rows)
    np.testing.assert_array_equal(by_name.error, in_order.error)
    assert by_name.shots == (1, 2, 30, 5)
    assert analysis.hard_samples([4, 4, 4, 4]).shots == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(top=0), "top=0"),
        (dict(shots=0), "shots"),
        (dict(shots=[1, 2]), "4 classes"),
        (dict(shots={"ant": 1, "cow": 2}), "cow"),
    ],
)
def test_bad_arguments_are_named(analysis, arguments, message):
    with pytest.raises(ValueError, match=message):
        analysis.hard_samples(**arguments)


def test_a_geometry_without_queries_is_refused(analysis):
    geometry = dataclasses.replace(analysis.task.geometry, queries=None)
    with pytest.raises(ValueError, match="queries"):
        hard_samples(geometry, 10, CLASSES, None)


def drawn_error(features, labels, row, shots, draws, rng):
    """P(another centroid is at least as near as the own class's), shots drawn with replacement from other samples."""
    query, own = features[row], labels[row]
    distances = []
    for c, m in enumerate(shots):
        others = np.setdiff1d(np.flatnonzero(labels == c), [row])
        centroids = features[rng.choice(others, (draws, m))].mean(axis=1)
        distances.append(np.sum((query - centroids) ** 2, axis=1))
    distances = np.array(distances)
    return np.mean(np.delete(distances, own, axis=0).min(axis=0) <= distances[own])


@pytest.mark.parametrize("shots", [(10, 10, 10, 10), (6, 20, 8, 12)])
def test_errors_match_centroids_that_are_drawn(analysis, swapped, shots):
    features, labels, rows, _, between = swapped
    draws, rng = 4000, np.random.default_rng(1)
    found = analysis.hard_samples(shots, top=None)
    error = found.error[np.argsort(found.rows)]
    asked = np.concatenate([between, rows[:5]])
    drawn = np.array([drawn_error(features.astype(np.float64), labels, row, shots, draws, rng) for row in asked])
    assert np.sum((drawn > 0.1) & (drawn < 0.9)) > 10
    # Four standard deviations of the draws. Then, the prediction is for new data (terms 1/n of 300 samples per class),
    # and from three cumulants.
    deviation = np.sqrt(drawn * (1 - drawn) / draws)
    np.testing.assert_array_less(np.abs(error[asked] - drawn), 4 * deviation + 0.02)
