"""Collapse inside a loop: the same numbers as of features that were kept, whatever the batches were."""

import jax.numpy as jnp
import numpy as np
import pytest

import dnc
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pairs import mean_over_pairs
from tests import oracles

K, D = 4, 12


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, 3000)
    centers = 2 * rng.normal(size=(K, D))
    features = centers[labels] + rng.normal(size=(3000, D)) * np.linspace(0.3, 2.0, D) + 50
    return features.astype(np.float32), labels


def filled(features, labels, sizes, **options):
    meter = dnc.CollapseMeter(K, **options)
    for part in np.split(np.arange(len(labels)), np.cumsum(sizes)):
        meter.update(features[part], labels[part])
    return meter


def assert_same(geometry, features, labels, tolerance=1e-5):
    expected = dnc.pair_geometry(features, labels, K)
    for name in ("cdnv", "directional_cdnv", "counts"):
        np.testing.assert_allclose(getattr(geometry, name), getattr(expected, name), rtol=tolerance, err_msg=name)
    shots = [1, 5, 100]
    for name in ("luthra2026", "exact_cantelli", "exact_joint"):
        ours, theirs = (dnc.certificate(name, of, shots).bound for of in (geometry, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("sizes", [[], [1] * 30, [7, 0, 1000, 3], [512] * 5])
@pytest.mark.parametrize("rows", [64, 2048])
def test_the_batches_do_not_matter(sample, sizes, rows):
    assert_same(filled(*sample, sizes, rows=rows).compute(), *sample)


def test_it_agrees_with_the_float64_oracle(sample):
    features, labels = sample
    geometry = filled(features, labels, [100] * 20).compute()
    expected = oracles.pair_geometry(features.astype(np.float64), labels)["directional_cdnv"]
    off = ~np.eye(K, dtype=bool)
    np.testing.assert_allclose(np.asarray(geometry.directional_cdnv)[off], expected[off], rtol=2e-5)


def test_torch_tensors_with_gradients_and_bfloat16(sample):
    torch = pytest.importorskip("torch")
    features, labels = sample
    meter, narrow = dnc.CollapseMeter(K), dnc.CollapseMeter(K)
    rounded = torch.tensor(features).bfloat16()
    for start in range(0, 3000, 500):
        x = torch.tensor(features[start : start + 500], requires_grad=True)
        meter.update(2 * x / 2, torch.tensor(labels[start : start + 500]))
        narrow.update(rounded[start : start + 500], torch.tensor(labels[start : start + 500], dtype=torch.int32))
    assert_same(meter.compute(), features, labels)
    assert_same(narrow.compute(), rounded.float().numpy(), labels)


def test_jax_arrays_and_lists(sample):
    features, labels = sample
    meter = dnc.CollapseMeter(K)
    meter.update(jnp.asarray(features[:2000]), jnp.asarray(labels[:2000]))
    meter.update(features[2000:].tolist(), labels[2000:].tolist())
    assert_same(meter.compute(), features, labels)


def test_normalized_as_analyze_does(sample):
    features, labels = sample
    result = dnc.analyze(features, labels, normalize=True, shots=[5], queries=False)
    scalars = filled(features, labels, [700, 700], normalize=True).scalars(shots=[5])
    assert scalars["cdnv"] == pytest.approx(float(mean_over_pairs(result.cdnv)), rel=1e-4)
    assert scalars["directional_cdnv"] == pytest.approx(float(mean_over_pairs(result.directional_cdnv)), rel=1e-4)


def test_scalars_are_means_over_pairs_and_bounds(sample):
    scalars = filled(*sample, [1000]).scalars(shots=[1, 10])
    assert list(scalars) == ["cdnv", "directional_cdnv", "two_class_bound_1", "two_class_bound_10"]
    geometry = dnc.pair_geometry(*sample, K)
    bound = dnc.certificate("exact_cantelli", geometry, [1, 10]).per_pair
    for m, pairs in zip((1, 10), np.asarray(bound), strict=True):
        expected = pairs[~np.eye(K, dtype=bool)].mean()
        assert scalars[f"two_class_bound_{m}"] == pytest.approx(expected, rel=1e-4)
    assert scalars["two_class_bound_1"] > scalars["two_class_bound_10"]


def test_parts_merge_and_stay_as_they_are(sample):
    features, labels = sample
    left, right = (filled(features[part], labels[part], [300]) for part in (slice(1000), slice(1000, None)))
    before = left.compute()
    assert_same(left.merge(right).compute(), features, labels)
    assert_same(dnc.CollapseMeter(K).merge(right).merge(left).compute(), features, labels)
    np.testing.assert_array_equal(left.compute().cdnv, before.cdnv)


def test_a_state_goes_through_a_file(sample, tmp_path):
    features, labels = sample
    meter = filled(features[:1500], labels[:1500], [400])
    np.savez(tmp_path / "state.npz", **meter.state_dict())
    other = dnc.CollapseMeter(K)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as state:
        other.load_state_dict(state)
    other.update(features[1500:], labels[1500:])
    assert_same(other.compute(), features, labels)
    other.load_state_dict(dnc.CollapseMeter(K).state_dict())
    with pytest.raises(ValueError, match="class 0 has 0"):
        other.compute()
    with pytest.raises(ValueError, match="meter of 3 classes"):
        dnc.CollapseMeter(3).load_state_dict(meter.state_dict())


def test_reset_forgets(sample):
    features, labels = sample
    meter = filled(10 * features[::-1], labels, [1000])
    meter.reset()
    meter.update(features, labels)
    assert_same(meter.compute(), features, labels)


def test_what_waits_is_bounded_and_copied(sample):
    features, labels = (x.copy() for x in sample)
    meter = dnc.CollapseMeter(K, rows=64)
    for start in range(0, 3000, 50):
        batch = features[start : start + 50].copy()
        meter.update(batch, labels[start : start + 50])
        batch[:] = np.nan  # a loader may use its buffer again
        assert sum(len(codes) for _, codes in meter._waiting) < 64
    assert_same(meter.compute(), features, labels)


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (np.ones((3, D)), [0, 1, K], ValueError, "labels range over 0..4, not 0..3"),
        (np.ones((3, D)), [0, -1, 1], ValueError, "labels range over -1..1"),
        (np.ones((3, D)), [0, 1], ValueError, "3 rows but labels has 2"),
        (np.ones((3, D + 1)), [0, 1, 2], ValueError, "13 columns, not 12 as before"),
        (np.full((2, D), np.nan), [0, 1], ValueError, "24 NaN or Inf values"),
        (np.ones((2, D), complex), [0, 1], TypeError, "real numbers"),
        (np.ones((2, D)), [0.5, 1.0], TypeError, "one-dimensional integers"),
        (np.ones(D), [0], ValueError, r"shape \[n, d\]"),
    ],
)
def test_a_refused_batch_changes_nothing(sample, features, labels, error, message):
    meter = filled(*sample, [1000])
    before = meter.compute()
    with pytest.raises(error, match=message):
        meter.update(features, labels)
    np.testing.assert_array_equal(meter.compute().cdnv, before.cdnv)


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="num_classes=1: give at least 2"):
        dnc.CollapseMeter(1)
    with pytest.raises(ValueError, match="rows=0"):
        dnc.CollapseMeter(2, rows=0)
    meter = dnc.CollapseMeter(3)
    meter.update(np.eye(4), [0, 0, 1, 2])
    with pytest.raises(ValueError, match="class 1 has 1, 2 has 1"):
        meter.compute()
    far = dnc.CollapseMeter(2)
    far.update(np.eye(4), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="too far from those before"):
        far.update(np.full((1, 4), 1e300), [0])
    with pytest.raises(TypeError):
        dnc.CollapseMeter(3.0)
    with pytest.raises(ValueError, match="all zeros"):
        dnc.CollapseMeter(2, normalize=True).update(np.zeros((1, 4)), [0])
    with pytest.raises(ValueError, match="differ in num_classes"):
        meter.merge(far)


@pytest.mark.parametrize(("scale", "offset"), [(1e-12, 0.0), (1e12, 0.0), (1.0, 1e8), (1e-3, 1e4)])
def test_scales_and_offsets_change_no_ratio(sample, scale, offset):
    features, labels = sample[0].astype(np.float64), sample[1]
    moved = scale * features + offset
    meter = dnc.CollapseMeter(K)
    for start in range(0, 3000, 500):
        meter.update(moved[start : start + 500], labels[start : start + 500])
    expected = dnc.pair_geometry(sample[0], labels, K)
    np.testing.assert_allclose(meter.compute().directional_cdnv, expected.directional_cdnv, rtol=1e-4)
    assert meter.scalars(shots=[5])["two_class_bound_5"] > 0


def test_parts_with_other_first_batches_merge(sample):
    features, labels = sample
    left, right = dnc.CollapseMeter(K), dnc.CollapseMeter(K)
    left.update(features[:8], labels[:8])
    left.update(features[8:1000], labels[8:1000])
    right.update(features[1000:1001] + 0, labels[1000:1001])
    right.update(features[1001:], labels[1001:])
    assert_same(left.merge(right).compute(), features, labels, tolerance=3e-5)


def test_an_error_while_adding_counts_nothing_twice(sample, monkeypatch):
    features, labels = sample
    meter = dnc.CollapseMeter(K, rows=1000)
    merge, calls = ClassMoments.merge, []

    def failing(self, other):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return merge(self, other)

    monkeypatch.setattr(ClassMoments, "merge", failing)
    with pytest.raises(MemoryError):
        meter.update(features, labels)
    assert_same(meter.compute(), features, labels)


def test_classes_that_float32_cannot_tell_apart_beside_a_far_one_are_refused():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = rng.normal(size=(300, 8)) + np.array([0, 2, 1e7])[labels][:, None]
    meter = dnc.CollapseMeter(3)
    meter.update(features, labels)
    with pytest.raises(ValueError, match=r"classes '0' and '1' lie .* too far for float32"):
        meter.compute()


def test_a_class_that_is_one_point_and_two_that_coincide_are_measured():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = rng.normal(size=(120, 6)).astype(np.float32)
    features[labels == 1] = 3.0
    meter = dnc.CollapseMeter(3)
    for part in np.split(rng.permutation(120), 4):
        meter.update(features[part], labels[part])
    expected = dnc.pair_geometry(features, labels, 3)
    np.testing.assert_allclose(meter.compute().directional_cdnv, expected.directional_cdnv, rtol=1e-5, atol=1e-12)
    features[labels == 2] = features[labels == 0]
    meter = dnc.CollapseMeter(3)
    meter.update(features, labels)
    expected = dnc.pair_geometry(features, labels, 3)
    np.testing.assert_array_equal(np.isfinite(meter.compute().cdnv), np.isfinite(expected.cdnv))
    np.testing.assert_allclose(meter.compute().cdnv[0, 1], expected.cdnv[0, 1], rtol=1e-5)


def test_a_state_of_another_kind_is_refused_and_nothing_lost(sample):
    features, labels = sample
    meter = filled(features, labels, [1000])
    normalized = filled(features, labels, [1000], normalize=True).state_dict()
    wrong = meter.state_dict() | {"covariance": np.zeros((K, 2, 2))}
    for state, message in ((normalized, "normalize=True"), (wrong, "its arrays must be"), ({"count": 1}, "meter of 4")):
        with pytest.raises(ValueError, match=message):
            meter.load_state_dict(state)
    assert_same(meter.compute(), features, labels)


def test_an_empty_batch_of_any_kind_adds_nothing(sample):
    torch = pytest.importorskip("torch")
    meter = filled(*sample, [1000])
    for empty in ([], torch.tensor([]), np.zeros(0, int)):
        meter.update(np.zeros((0, D)), empty)
    assert meter.compute().counts.sum() == 3000
