import functools
import math

import numpy as np
import pytest

import dnc
from dnc.few_shot.curve import shots_needed

K, SHOTS = 3, (1, 2, 5, 10, 20, 50)


@functools.cache
def population():
    """Classes that overlap, so that a part of the error remains."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K, dtype=np.int32), 1000)
    means = np.float32(np.eye(K, 6) * [[1.2], [1.2], [2.0]])
    return means[labels] + np.float32(rng.normal(size=(3 * 1000, 6)) * [1, 1, 1, 2, 0.5, 0.5]), labels


def pilot(size, seed=0):
    features, labels = population()
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c in range(K)])
    return features[rows], labels[rows]


@functools.cache
def planned(target=0.3, size=12):
    return dnc.plan(*pilot(size), target_error=target, shots=SHOTS, repeats=30)


def test_the_curve_falls_and_holds_the_truth():
    import jax

    plan = planned()
    truth = dnc.few_shot_error(jax.random.key(0), *population(), SHOTS, 50, K).mean
    assert np.all((plan.low <= truth) & (truth <= plan.high))
    assert np.all(np.diff(plan.predicted) < 0.01)
    np.testing.assert_array_equal(np.isfinite(plan.measured), np.array(SHOTS) <= 0.6 * 12)
    known = np.isfinite(plan.measured)
    np.testing.assert_allclose(plan.error[known], plan.measured[known], atol=1e-6)
    assert plan.limit_low <= plan.limit <= plan.limit_high
    assert (plan.classes, plan.counts.tolist()) == (("0", "1", "2"), [12, 12, 12])


def test_the_number_of_shots_reaches_the_target():
    plan = planned()
    at = float(np.interp(math.log(plan.shots_needed), np.log(plan.shots), plan.error))
    assert at <= 0.3 + 0.02
    assert plan.shots_needed_low <= plan.shots_needed <= plan.shots_needed_high


def test_shots_needed_interpolates_and_ends_above():
    grid = np.array([1.0, 10.0, 100.0])
    assert shots_needed(grid, np.array([0.4, 0.2, 0.1]), 0.1) == 100
    assert shots_needed(grid, np.array([0.4, 0.2, 0.1]), 0.3) == math.ceil(10 ** (math.log(4 / 3) / math.log(2)))
    assert shots_needed(grid, np.array([0.4, 0.2, 0.1]), 0.05) == math.inf
    assert shots_needed(grid, np.array([0.4, 0.2, 0.3]), 0.25) == math.inf
    assert shots_needed(grid, np.array([0.4, 0.2, 0.1]), 0.5) == 1


def test_gains_are_differences_of_predictions():
    plan = planned()
    counts = plan.counts.tolist()
    now = plan.error_of(counts)
    for c in range(K):
        more = [n + (i == c) for i, n in enumerate(counts)]
        assert abs(now - plan.error_of(more) - plan.gain[c]) < 0.2 * abs(plan.gain[c]) + 2e-4


def test_a_budget_goes_where_it_helps():
    plan = planned()
    shots = plan.allocate(30, step=3)
    assert sum(shots.values()) == 36 + 30
    assert all(shots[name] >= 12 for name in plan.classes)
    assert plan.error_of(shots) <= plan.error_of([22, 22, 22]) + 2e-3
    assert plan.allocate(0) == {"0": 12, "1": 12, "2": 12}
    with pytest.raises(ValueError, match="budget=-1"):
        plan.allocate(-1)
    with pytest.raises(ValueError, match="positive number for each of 3"):
        plan.error_of([1, 2])


def test_warns_when_it_is_not_to_be_trusted():
    few = dnc.plan(*pilot(4), target_error=0.3, shots=SHOTS, repeats=5)
    assert "has 4 samples in the pilot" in few.warnings[0]
    assert "target 0.001 lies below the error" in planned(0.001).warnings[0]
    assert "note: the target 0.001" in planned(0.001).summary()
    assert planned(0.001).shots_needed == math.inf


def test_two_samples_of_each_class_leave_everything_open():
    plan = dnc.plan(*pilot(2), target_error=0.3, shots=SHOTS, repeats=5)
    np.testing.assert_array_equal(plan.low, 0)
    np.testing.assert_array_equal(plan.high, 1)
    assert "has 2 samples in the pilot" in plan.warnings[0]


def test_is_the_same_each_time_and_after_moving():
    features, labels = pilot(12)
    moved = dnc.plan(10 + 3 * features, labels, target_error=0.3, shots=SHOTS, repeats=30)
    np.testing.assert_allclose(moved.predicted, planned().predicted, atol=2e-3)


def test_many_dimensions_are_as_good_as_their_span():
    features, labels = pilot(12)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(100, 6)))
    wide = dnc.plan(features @ rotation.T.astype(np.float32), labels, target_error=0.3, shots=SHOTS, repeats=30)
    np.testing.assert_allclose(wide.predicted, planned().predicted, atol=2e-3)


def test_tables_have_the_curve():
    frame = planned().to_pandas()
    assert frame.columns.tolist() == ["shots", "error", "low", "high", "measured", "predicted"]
    text = planned().summary()
    assert text.startswith("pilot: 3 classes, 12 samples of each")
    assert "limit:" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_error": 0.0}, "target_error=0.0 must lie between 0 and 1"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"shots": [0]}, "positive integers"),
        ({"labels": np.zeros(36, int)}, "two"),
        ({"labels": np.zeros(35, int)}, "35"),
        ({"features": np.full((36, 6), np.nan)}, "NaN or Inf"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(change, message):
    features, labels = pilot(12)
    with pytest.raises(ValueError, match=message):
        dnc.plan(**{"features": features, "labels": labels, "shots": SHOTS} | change)
