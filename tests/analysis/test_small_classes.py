"""Long-tailed classes: what is left out is named, and nothing is left out unless it is asked for."""

import numpy as np
import pytest

import dnc
from dnc import record


def long_tailed(k, largest, d=6, seed=0):
    """Classes of 2 to `largest` samples, geometrically spaced, in random order."""
    rng = np.random.default_rng(seed)
    sizes = np.round(np.geomspace(2, largest, k)).astype(int)
    labels = rng.permutation(np.repeat(np.arange(k), sizes))
    return rng.normal(size=(k, d))[labels] * 2 + rng.normal(size=(len(labels), d)), labels, sizes


def test_small_classes_are_left_out_by_name(tmp_path):
    features, labels, sizes = long_tailed(6, 60)
    names = [f"class {c}" for c in range(6)]
    result = dnc.analyze(features, labels, class_names=names, shots=[1, 5], least_samples=8, repeats=2)
    small = {names[c]: int(sizes[c]) for c in range(6) if sizes[c] < 8}
    assert result.task.left_out == small
    assert result.task.classes == tuple(name for name in names if name not in small)
    assert result.task.counts.tolist() == [n for n in sizes if n >= 8]
    assert f"{len(small)} classes with too few samples are left out: class 0 (2)" in result.summary()
    result.save(tmp_path / "result.json")
    assert record.load(tmp_path / "result.json").tasks["labels"].left_out == small
    kept = np.isin(labels, np.flatnonzero(sizes >= 8))
    expected = dnc.analyze(features[kept], labels[kept], shots=[1, 5], repeats=2)
    np.testing.assert_allclose(result.directional_cdnv, expected.directional_cdnv, rtol=1e-5)
    rows = [int(name) for name in result.hard_samples(5, 5).ids]
    assert all(sizes[labels[row]] >= 8 for row in rows)  # rows of the features as they were given


def test_classes_of_one_sample_can_be_left_out_too():
    features, labels, _ = long_tailed(4, 20)
    labels[0] = 99
    with pytest.raises(ValueError, match="99"):
        dnc.analyze(features, labels)
    assert dnc.analyze(features, labels, least_samples=3, shots=[1]).task.left_out["99"] == 1


def test_too_many_shots_say_how_to_leave_classes_out():
    features, labels, _ = long_tailed(6, 60)
    with pytest.raises(ValueError, match="least_samples=11"):
        dnc.analyze(features, labels, shots=[10])
    with pytest.raises(ValueError, match="1 classes of labels have at least 50 samples, and two are needed"):
        dnc.analyze(features, labels, least_samples=50)


def test_a_guarantee_stands_at_its_own_shots_in_any_order():
    """Twenty samples make blocks of five shots, not of fifteen."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    result = dnc.analyze(rng.normal(size=(40, 3)) + labels[:, None], labels, shots=[15, 5, 1], repeats=2)
    found = result.task.record().guarantee
    np.testing.assert_array_equal(found.blocks, [1, 3, 10])
    np.testing.assert_array_equal(found.upper[1:], result.guarantee([5, 1]).upper)
    assert np.isnan(found.upper[0])


def test_several_labelings_keep_the_same_samples():
    features, labels, _ = long_tailed(6, 60)
    other = np.arange(len(labels)) % 2
    result = dnc.analyze(features, {"tail": labels, "other": other}, least_samples=8, shots=[1], repeats=2)
    assert len(result.tasks["tail"].labels) == len(result.tasks["other"].labels)
    assert result.tasks["other"].left_out == {}


def test_unequal_classes_predict_and_plan():
    features, labels, sizes = long_tailed(5, 40)
    result = dnc.analyze(features, labels, shots=[1], repeats=2)
    allocation = {str(c): max(1, int(n) // 2) for c, n in enumerate(sizes)}
    measured = result.few_shot_error(allocation, repeats=200)
    assert abs(float(result.predicted_error(allocation).mean[0]) - float(measured.mean[0])) < 0.1
    plan = dnc.plan(features, labels, target_error=0.2, repeats=5)
    assert plan.counts.tolist() == sizes.tolist()
    assert "has 2 samples in the pilot" in plan.warnings[0]
    shots = plan.allocate(20)
    assert sum(shots.values()) == sizes.sum() + 20


@pytest.mark.slow
def test_a_hundred_long_tailed_classes_go_through_everything():
    features, labels, sizes = long_tailed(100, 500, d=16)
    result = dnc.analyze(features, labels, shots=[1, 5, 10], least_samples=11, repeats=3)
    small = {str(c): int(n) for c, n in enumerate(sizes) if n < 11}
    assert result.record.tasks["labels"].left_out == small
    task = result.record.tasks["labels"]
    np.testing.assert_allclose(task.predicted.mean, task.error.mean, atol=0.05)
    pilot, pilot_labels, _ = long_tailed(100, 12, d=16)
    plan = dnc.plan(pilot, pilot_labels, target_error=0.3, repeats=3)
    assert len(plan.classes) == 100
    assert np.isfinite(plan.error).all()
