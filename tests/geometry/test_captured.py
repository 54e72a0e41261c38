"""Captured energy: B, its law, its bound and its shrinkage, against whitening by hand."""

import jax
import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

import dnc
from dnc.geometry.captured import captured_energy
from dnc.geometry.moments import ClassMoments

K, D = 3, 8


def sample(n=400, seed=0, apart=1.5, d=D, k=K):
    rng = np.random.default_rng(seed)
    labels = np.arange(k * n) % k
    mixing = rng.normal(size=(d, d))
    features = (apart * rng.normal(size=(k, d)))[labels] + rng.normal(size=(k * n, d)) @ mixing
    return features.astype(np.float32), labels.astype(np.int32)


def moments_of(features, labels, k=K):
    return ClassMoments.from_batch(features, labels, k)


def whitened(features, labels, pair):
    """The two classes, balanced, in coordinates of their total covariance; and Y."""
    x = np.concatenate([features[labels == c] for c in pair]).astype(np.float64)
    y = np.repeat([-1.0, 1.0], [np.sum(labels == c) for c in pair])
    x -= x.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    return x @ vectors / np.sqrt(values), y


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_it_is_the_squared_mean_of_y_f_in_whitened_coordinates(pair):
    features, labels = sample()
    f, y = whitened(features, labels, pair)
    energy = captured_energy(moments_of(features, labels), estimate="plug-in")
    expected = np.sum(np.mean(y[:, None] * f, axis=0) ** 2)
    assert energy.per_pair[pair] == pytest.approx(expected, rel=1e-4)
    assert energy.per_pair[pair[::-1]] == energy.per_pair[pair]


@pytest.mark.parametrize("pair", [(0, 1), (1, 2)])
def test_its_law_gives_the_collapse_of_whitened_features(pair):
    features, labels = sample()
    f, y = whitened(features, labels, pair)
    geometry = dnc.pair_geometry(f.astype(np.float32), (y > 0).astype(np.int32), 2)
    energy = captured_energy(moments_of(features, labels), estimate="plug-in")
    directional = np.asarray(geometry.directional_cdnv)
    assert (directional[0, 1] + directional[1, 0]) / 2 == pytest.approx(energy.directional_cdnv[pair], rel=1e-3)
    assert geometry.cdnv[0, 1] == pytest.approx(energy.cdnv[pair], rel=1e-3)


def test_a_linear_map_changes_nothing_and_whitening_is_the_best_of_them():
    features, labels = sample()
    mixed = features @ np.random.default_rng(5).normal(size=(D, D)).astype(np.float32)
    ours, theirs = (captured_energy(moments_of(x, labels), estimate="plug-in") for x in (features, mixed))
    off = ~np.eye(K, dtype=bool)
    np.testing.assert_allclose(ours.per_pair[off], theirs.per_pair[off], rtol=1e-3)
    np.testing.assert_allclose(ours.whole, theirs.whole, rtol=1e-3)
    directional = np.asarray(dnc.pair_geometry(features, labels, K).directional_cdnv)
    assert np.all((directional + directional.T)[off] / 2 >= ours.directional_cdnv[off] * (1 - 1e-4))


def test_by_hand():
    # D = (2, 0), S = diag(1, 4): q = 4 / 1 / 4 = 1, B = 1/2, (1 - B) / (4 B) = 1/4, (2 - B) / (2 B) = 3/2
    corners = np.array([[x, y] for x in (-1, 1) for y in (-2, 2)], np.float32)
    features, labels = np.concatenate([corners, corners + np.float32([2, 0])]), np.repeat(np.int32([0, 1]), 4)
    energy = captured_energy(moments_of(features, labels, 2), estimate="plug-in")
    assert energy.per_pair[0, 1] == pytest.approx(0.5)
    assert energy.whole == pytest.approx(0.5)
    assert energy.directional_cdnv[0, 1] == pytest.approx(0.25)
    assert energy.cdnv[0, 1] == pytest.approx(1.5)
    np.testing.assert_allclose(energy.error_bound([100])[0, 0, 1], 0.5 + 1.5 / 100 + 0.5 / 100.5)
    assert energy.error_bound([1])[0, 0, 1] == 1


def test_of_a_labeling_it_is_the_mean_share_of_its_directions():
    features, labels = sample()
    means = np.stack([features[labels == c].mean(axis=0) for c in range(K)]).astype(np.float64)
    between = np.cov(means.T, ddof=0)
    within = np.mean([np.cov(features[labels == c].T.astype(np.float64), ddof=0) for c in range(K)], axis=0)
    expected = np.trace(np.linalg.solve(within + between, between)) / (K - 1)
    energy = captured_energy(moments_of(features, labels), estimate="plug-in")
    assert energy.whole == pytest.approx(expected, rel=1e-4)
    assert 0 < energy.whole < 1


def test_the_shrinkage_is_ledoit_and_wolfs():
    features, labels = sample(n=20, k=2)
    residuals = features.astype(np.float64)
    for c in range(2):
        residuals[labels == c] -= residuals[labels == c].mean(axis=0)
    within, _ = ledoit_wolf(residuals, assume_centered=True)
    apart = (features[labels == 0].mean(axis=0) - features[labels == 1].mean(axis=0)).astype(np.float64)
    q = apart @ np.linalg.solve(within, apart) / 4
    energy = captured_energy(moments_of(features, labels, 2), estimate="shrunk")
    assert energy.per_pair[0, 1] == pytest.approx(q / (1 + q), rel=1e-3)


@pytest.mark.parametrize("apart", [0.15, 1.0])
def test_the_correction_takes_the_bias_of_q_out(apart):
    d, n = 20, 40  # of each class: as many samples as twice the dimensions
    features, labels = sample(n=40_000, d=d, k=2, apart=apart)
    everything = captured_energy(moments_of(features, labels, 2), estimate="plug-in").per_pair[0, 1]
    truth = everything / (1 - everything)
    found = {"corrected": [], "plug-in": []}
    for start in range(0, 200 * 2 * n, 2 * n):
        few = slice(start, start + 2 * n)
        for estimate, values in found.items():
            b = captured_energy(moments_of(features[few], labels[few], 2), estimate=estimate).per_pair[0, 1]
            assert 0 <= b <= 1
            values.append(b / (1 - b))
    error = np.std(found["corrected"]) / np.sqrt(200)
    assert abs(np.mean(found["corrected"]) - truth) < 4 * error + 0.02 * truth
    assert np.mean(found["plug-in"]) - truth > 10 * error


@pytest.mark.parametrize("apart", [0.5, 2.0])
def test_no_measured_error_of_whitened_centers_is_above_the_bound(apart):
    features, labels = sample(n=500, apart=apart, k=2, d=4)
    f, y = whitened(features, labels, (0, 1))
    shots = [5, 20, 100]
    bound = captured_energy(moments_of(features, labels, 2), estimate="plug-in").error_bound(shots)[:, 0, 1]
    codes = (y > 0).astype(np.int32)
    error = dnc.few_shot_error(jax.random.key(0), f.astype(np.float32), codes, shots, 200, num_classes=2)
    assert np.all(np.asarray(error.mean) <= bound)
    assert bound[-1] < 1


def test_what_cannot_be_computed_is_said():
    features, labels = sample(n=3)
    moments = moments_of(features, labels)
    with pytest.raises(ValueError, match=r"6 samples of classes \[0, 1\].* needs more than 9 in 8"):
        captured_energy(moments, estimate="plug-in")
    with pytest.raises(ValueError, match="needs more than 11 in 8"):
        captured_energy(moments)
    assert 0 < captured_energy(moments, estimate="shrunk").whole < 1
    with pytest.raises(ValueError, match="is not known"):
        captured_energy(moments, estimate="shrink")
    with pytest.raises(ValueError, match="covariance=True"):
        captured_energy(ClassMoments.from_batch(features, labels, K, covariance=False))
    with pytest.raises(ValueError, match="class 3 has 0 samples"):
        captured_energy(moments_of(features, labels, 4))
    with pytest.raises(ValueError, match="one class"):
        captured_energy(moments_of(features, np.zeros_like(labels), 1))
    features, labels = sample()
    features[:, 1] = features[:, 0] + 1e-4 * features[:, 2]
    with pytest.raises(ValueError, match="too near to it for float32"):
        captured_energy(moments_of(features, labels))
    features[:, 1] = 0
    with pytest.raises(ValueError, match="singular"):
        captured_energy(moments_of(features, labels), estimate="plug-in")
