"""How early in a spectrum a task lives: signals of known correlation, against whitening by hand."""

import numpy as np
import pytest

from dnc.geometry import validation
from dnc.geometry.captured import box, captured_energy
from dnc.geometry.energy_spectrum import early_energy, feature_spectrum, view_spectrum
from dnc.geometry.moments import ClassMoments

N, D = 20_000, 5
SHARES = np.array([0.9, 0.7, 0.5, 0.3, 0.1])  # of each direction's variance that both views have in common


def views(seed=0, mixed=True):
    """Two views whose directions agree by `SHARES`, turned and stretched; Y is the sign of the third's common part."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N, D)) * np.sqrt(SHARES)
    first, second = (common + rng.normal(size=(N, D)) * np.sqrt(1 - SHARES) for _ in range(2))
    mixing = rng.normal(size=(D, D)) if mixed else np.eye(D)
    labels = (common[:, 2] > 0).astype(np.int32)
    return first @ mixing + 7, second @ mixing + 7, labels


def test_correlations_are_the_shares_and_components_are_white():
    first, second, _ = views()
    spectrum = view_spectrum(first, second)
    np.testing.assert_allclose(spectrum.size, SHARES, atol=0.02)
    both = np.concatenate([first, second]) - spectrum.center
    psi = both @ spectrum.components
    np.testing.assert_allclose(psi.T @ psi / len(psi), np.eye(D), atol=1e-8)
    cross = (first - spectrum.center) @ spectrum.components, (second - spectrum.center) @ spectrum.components
    np.testing.assert_allclose(np.mean(cross[0] * cross[1], axis=0), spectrum.size, atol=1e-8)


def test_a_task_of_the_third_direction_is_expressed_by_the_third():
    """B = E[Y psi]^2 = (sqrt(2/pi) sqrt(share))^2 = share 2/pi."""
    first, second, labels = views()
    energy = view_spectrum(first, second).energy(first, labels, 2)
    np.testing.assert_allclose(energy[:2], 0, atol=0.005)
    np.testing.assert_allclose(energy[2:], SHARES[2] * 2 / np.pi, atol=0.015)


def test_the_whole_spectrum_captures_the_energy_of_the_task():
    """All directions together are a whitening by the views' covariance, the same population as the first view's."""
    first, second, labels = views()
    moments = ClassMoments.from_batch(first.astype(np.float32), labels, 2)
    expected = captured_energy(moments).per_pair[0, 1]
    assert view_spectrum(first, second).energy(first, labels, 2)[-1] == pytest.approx(expected, rel=0.02)


def test_views_may_be_mixed_by_any_linear_map():
    plain, mixed = views(mixed=False), views()
    ours, theirs = (view_spectrum(*x[:2]).energy(x[0], x[2], 2) for x in (plain, mixed))
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    turned = [x @ np.random.default_rng(3).normal(size=(D, D)) for x in mixed[:2]]
    again = view_spectrum(*turned)
    np.testing.assert_allclose(again.size, view_spectrum(*mixed[:2]).size, rtol=1e-8)
    np.testing.assert_allclose(again.energy(turned[0], mixed[2], 2), theirs, atol=1e-8)


def test_several_classes_that_fill_their_directions_have_energy_one():
    """Three far points of a triangle, in the first two directions, seen alike in both views."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    corners = 40 * np.array([[0, 1], [np.sqrt(3) / 2, -0.5], [-np.sqrt(3) / 2, -0.5]])
    first, second = (np.hstack([corners[labels], np.zeros((N, 2))]) + rng.normal(size=(N, 4)) for _ in range(2))
    energy = view_spectrum(first, second).energy(first, labels, 3)
    np.testing.assert_allclose(energy, [0.5, 1, 1, 1], atol=0.01)


def test_labels_of_nothing_have_no_energy_though_the_sample_is_small():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 400, 40))
    spectrum = view_spectrum(first, second)
    labels = [rng.permutation(400) % 2 for _ in range(50)]
    last = np.mean([spectrum.energy(first, y, 2)[-1] for y in labels])
    naive = np.mean([np.sum(np.mean(np.where(y, 1, -1)[:, None] * first, axis=0) ** 2) for y in labels])
    assert naive > 0.08  # d/n = .1
    assert last < 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: (a, b[:, :3]), r"two views of the same images"),
        (lambda a, b: (a[:4], b[:4]), "4 images in 5 dimensions"),
        (
            lambda a, b: (np.where(a == a[3, 1], np.nan, a), b),
            r"first hold values that are NaN or Inf \(first in row 3",
        ),
        (lambda a, b: (a * [1, 1, 0, 1, 1], b * [1, 1, 0, 1, 1]), "feature 2 is constant"),
        (lambda a, b: (a[:, [0, 0, 1, 2, 3]], b[:, [0, 0, 1, 2, 3]]), "covariance is singular"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        view_spectrum(*change(*views()[:2]))


def test_features_and_labels_must_fit():
    first, second, labels = views()
    spectrum = view_spectrum(first, second)
    with pytest.raises(ValueError, match="dimension 3, the spectrum 5"):
        spectrum.energy(first[:, :3], labels, 2)
    with pytest.raises(ValueError, match="class 2 has 0 samples"):
        spectrum.energy(first, labels, 3)
    with pytest.raises(ValueError, match="one label per row"):
        spectrum.energy(first, labels[:9], 2)


def test_the_box_of_two_tasks_by_hand():
    """Four points at (+-3, +-1) with unit noise in three directions: B = 9/10 and 1/2, and means at the corners."""
    rng = np.random.default_rng(0)
    y = np.stack(np.meshgrid([-1, 1], [-1, 1])).reshape(2, -1).T[np.arange(40_000) % 4]
    x = np.hstack([y * [3, 1], np.zeros((40_000, 1))]) + rng.normal(size=(40_000, 3))
    found = box(x @ rng.normal(size=(3, 3)), y)
    np.testing.assert_allclose(found.sides**2, [0.9, 0.5], atol=0.01)
    np.testing.assert_allclose(found.corners, found.sides * found.combinations, atol=0.03)
    assert found.deviation < found.bound == pytest.approx(0.6, abs=0.02)


def test_the_box_holds_where_tasks_interact():
    """The mean of one combination lies far off: the deviation is large and stays below its bound."""
    rng = np.random.default_rng(0)
    y = np.stack(np.meshgrid([-1, 1], [-1, 1])).reshape(2, -1).T[np.arange(20_000) % 4]
    x = np.hstack([y * 1.0, rng.normal(size=(20_000, 2))]) + 0.3 * rng.normal(size=(20_000, 4))
    x[(y == 1).all(axis=1)] += [3, -2, 5, 0]
    found = box(x, y)
    assert 0.02 < found.deviation <= found.bound


def test_the_box_needs_every_combination():
    with pytest.raises(ValueError, match=r"no sample has the labels \[-1, 1\]"):
        box(np.random.default_rng(0).normal(size=(30, 3)), np.array([[-1, -1], [1, -1], [1, 1]])[np.arange(30) % 3])
    with pytest.raises(ValueError, match="labels -1 and 1"):
        box(np.zeros((4, 2)), np.array([[0], [1], [0], [1]]))


def test_principal_components_come_by_variance_and_are_white():
    rng = np.random.default_rng(0)
    deviations = np.array([4.0, 1.0, 9.0, 0.5])
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    x = rng.normal(size=(N, 4)) * deviations @ turn + 100
    spectrum = feature_spectrum(x)
    np.testing.assert_allclose(spectrum.size, np.sort(deviations**2)[::-1], rtol=0.05)
    psi = (x - spectrum.center) @ spectrum.components
    np.testing.assert_allclose(psi.T @ psi / N, np.eye(4), atol=1e-8)


@pytest.mark.parametrize("n", [30, 400])
def test_components_are_those_of_the_singular_value_decomposition_also_of_few_samples(n):
    x = np.random.default_rng(0).normal(size=(n, 50)) * np.arange(1, 51)
    spectrum = feature_spectrum(x)
    centered = x - x.mean(axis=0)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    rank = min(n - 1, 50)
    np.testing.assert_allclose(spectrum.size, (singular**2 / n)[:rank], rtol=1e-8)
    psi = centered @ spectrum.components
    np.testing.assert_allclose(np.abs(np.sum(psi * left[:, :rank], axis=0)), np.sqrt(n), rtol=1e-6)


def test_a_task_of_the_widest_direction_is_expressed_by_the_first():
    """Y is the sign of a direction of deviation 9: E[Y psi]^2 = 2/pi there, nothing elsewhere."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 3))
    energy = feature_spectrum(z * [1, 9, 3]).energy(z * [1, 9, 3], (z[:, 1] > 0).astype(np.int32), 2)
    np.testing.assert_allclose(energy, 2 / np.pi, atol=0.01)


def test_the_order_of_directions_does_not_change_the_energy_of_all():
    first, second, labels = views()
    both = np.concatenate([first, second])
    by_variance = feature_spectrum(both).energy(first, labels, 2)[-1]
    assert by_variance == pytest.approx(view_spectrum(first, second).energy(first, labels, 2)[-1], rel=1e-6)


def test_equal_features_have_no_direction():
    with pytest.raises(ValueError, match="all features are equal"):
        feature_spectrum(np.ones((5, 3)))


def test_a_part_at_a_time_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 6)) * np.arange(1, 7) + 1000).astype(np.float32)
    labels = np.arange(50) % 2
    whole = feature_spectrum(x)
    values = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, bias=True))[::-1]
    monkeypatch.setattr(validation, "_ROWS_AT_ONCE", 7)
    found = feature_spectrum(x)
    np.testing.assert_allclose(found.size, values, rtol=1e-9)
    np.testing.assert_allclose(found.energy(x, labels, 2), whole.energy(x, labels, 2), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e-30, 1e30, 1e160, 1e300])
def test_no_energy_depends_on_scale(scale):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = rng.normal(size=(60, 4)) + labels[:, None] * np.array([1.0, 0, 0, 0.5])
    expected = early_energy(x, {"task": (labels, 2)})["task"]
    found = early_energy(x * scale, {"task": (labels, 2)})["task"]
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-9)


def test_float32_features_as_large_as_there_are():
    x = np.float32(3.2e38) * np.sign(np.random.default_rng(0).normal(size=(40, 3))).astype(np.float32)
    assert np.all(np.isfinite(list(early_energy(x, {"task": (np.arange(40) % 2, 2)})["task"].values())))
    assert early_energy(np.ones((4, 3), np.float32), {"task": (np.arange(4) % 2, 2)}) == {}
