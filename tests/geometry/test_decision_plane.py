import numpy as np
import pytest

from dnc.geometry.decision_plane import decision_plane, representative_pairs
from tests import oracles
from tests.samples import clusters


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "d"), [(300, 12), (40, 90)])  # covariance side, Gram side
def test_the_plane_matches_projections_one_by_one(n, d, offset):
    features, labels = clusters(seed=3, n=n, k=2, d=d, offset=offset)
    classes = [features[labels == c] for c in (0, 1)]
    for actual, expected in zip(decision_plane(*classes), oracles.decision_plane(*classes), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-8)


def test_the_means_lie_at_minus_one_and_one_and_the_sign_tells_the_nearer_mean():
    features, labels = clusters(seed=4, n=200, k=2, d=6)
    classes = [features[labels == c].astype(np.float64) for c in (0, 1)]
    means = [z.mean(axis=0) for z in classes]
    for z, points, place in zip(classes, decision_plane(*classes), (-1, 1), strict=True):
        np.testing.assert_allclose(points.mean(axis=0), [place, 0], atol=1e-12)
        nearer_second = np.linalg.norm(z - means[1], axis=1) < np.linalg.norm(z - means[0], axis=1)
        np.testing.assert_array_equal(points[:, 0] > 0, nearer_second)


def test_the_plane_holds_the_pairs_directional_cdnv():
    features, labels = clusters(seed=5, n=300, k=2, d=8)
    expected = oracles.pair_geometry(features, labels)["directional_cdnv"]
    first, second = decision_plane(*(features[labels == c] for c in (0, 1)))
    np.testing.assert_allclose([first[:, 0].var() / 4, second[:, 0].var() / 4], expected[[0, 1], [1, 0]], rtol=1e-6)


def test_rotation_translation_and_scale_change_nothing():
    features, labels = clusters(seed=6, n=100, k=2, d=5)
    classes = [features[labels == c].astype(np.float64) for c in (0, 1)]
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    for plain, moved in zip(
        decision_plane(*classes), decision_plane(*(3 * z @ turn + 7 for z in classes)), strict=True
    ):
        np.testing.assert_allclose(moved[:, 0], plain[:, 0], atol=1e-9)
        np.testing.assert_allclose(np.abs(moved[:, 1]), np.abs(plain[:, 1]), atol=1e-9)


def test_without_an_orthogonal_direction_samples_lie_on_the_axis():
    first, second = np.array([[0.0], [2.0]]), np.array([[4.0], [6.0]])
    for points, expected in zip(decision_plane(first, second), ([-1.5, -0.5], [0.5, 1.5]), strict=True):
        np.testing.assert_allclose(points, np.stack([expected, [0, 0]], axis=1))


def test_coincident_means_have_no_plane():
    first, second = decision_plane(np.array([[-1.0, 0], [1, 0]]), np.array([[0.0, -1], [0, 1]]))
    assert np.isnan(first).all()
    assert np.isnan(second).all()


def matrix(values, k):
    full = np.full((k, k), np.nan)
    for (i, j), value in values.items():
        full[i, j], full[j, i] = 1.5 * value, 0.5 * value  # their mean is the value
    return full


def test_the_hardest_median_and_easiest_pair_are_chosen_by_the_mean_of_both_orders():
    rng = np.random.default_rng(0)
    values = {
        (i, j): float(v) for (i, j), v in zip(np.argwhere(np.triu(np.ones((6, 6)), 1)), rng.random(15), strict=True)
    }
    ordered = sorted(values, key=values.__getitem__, reverse=True)
    expected = {"hardest": ordered[0], "median": ordered[7], "easiest": ordered[-1]}
    assert representative_pairs(matrix(values, 6)) == expected


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ({}, []),
        ({(0, 1): np.inf}, []),
        ({(0, 1): 1.0}, ["hardest"]),
        ({(0, 1): 1.0, (0, 2): 2.0, (1, 2): np.inf}, ["hardest", "easiest"]),
        ({(0, 1): 1.0, (0, 2): 1.0, (1, 2): 1.0}, ["hardest", "median", "easiest"]),
    ],
)
def test_no_pair_is_chosen_twice_and_none_without_a_finite_value(values, ranks):
    chosen = representative_pairs(matrix(values, 3))
    assert list(chosen) == ranks
    assert len(set(chosen.values())) == len(ranks)
