import numpy as np
import pytest

from dnc.geometry.decomposition import spread_pairs, variance_split
from tests import oracles
from tests.samples import clusters


def as_rows(split):
    return np.stack([split.axis, split.top1, split.top10, split.top100, split.trace], axis=1)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "d"), [(300, 20), (60, 150)])  # covariance side, Gram side
def test_variance_split_matches_projected_covariance(n, d, offset):
    features, labels = clusters(seed=0, n=n, k=4, d=d, offset=offset)
    pairs = spread_pairs(4)
    expected = oracles.variance_split(features, labels, pairs)
    np.testing.assert_allclose(as_rows(variance_split(features, labels, pairs)), expected, rtol=1e-5)


def test_parts_add_up_to_the_pooled_trace():
    features, labels = clusters(seed=1, n=200, k=3, d=8)
    moments = oracles.moments(features, labels)
    split = variance_split(features, labels, np.array([[0, 2]]))
    pooled = np.average(moments["variance"][[0, 2]], weights=moments["count"][[0, 2]])
    np.testing.assert_allclose(split.axis + split.trace, [pooled], rtol=1e-5)
    np.testing.assert_allclose(split.top10, split.trace, rtol=1e-6)  # 7 directions are left


def test_coincident_means_have_no_axis():
    features = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]], np.float32)
    split = variance_split(features, np.array([0, 0, 1, 1]), np.array([[0, 1]]))
    assert np.isnan(as_rows(split)).all()


@pytest.mark.parametrize("pair", [(1, 1), (0, 5)])
def test_pairs_must_be_two_classes_with_samples(pair):
    features, labels = clusters(seed=2, n=50, k=3, d=4)
    with pytest.raises(ValueError, match=rf"pairs holds \({pair[0]}, {pair[1]}\)"):
        variance_split(features, labels, np.array([pair]))


def test_spread_pairs_are_all_pairs_or_ten_of_them():
    np.testing.assert_array_equal(spread_pairs(3), [[0, 1], [0, 2], [1, 2]])
    many = spread_pairs(100)
    assert many.shape == (10, 2)
    assert (many[:, 0] < many[:, 1]).all()
    assert len(np.unique(many, axis=0)) == 10
    np.testing.assert_array_equal(many[[0, -1]], [[0, 1], [98, 99]])
