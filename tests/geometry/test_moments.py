import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry.blocks import block_size, class_blocks
from dnc.geometry.moments import ClassMoments
from tests import oracles
from tests.samples import assert_leaves_close, clusters

K, N, D = 3, 240, 6
HIGHER = ("variance", "fourth_moment", "third_moment", "covariance")
merge = ClassMoments.merge
from_batch = functools.partial(ClassMoments.from_batch, num_classes=K)


def assert_matches_oracle(moments, features, labels, rtol=1e-5):
    expected = oracles.moments(features, labels)
    for name in ("count", "variance", "fourth_moment"):
        np.testing.assert_allclose(getattr(moments, name), expected[name], rtol=rtol, err_msg=name)
    for name in ("third_moment", "covariance"):
        assert_leaves_close(getattr(moments, name), expected[name], rtol)
    gaps = np.asarray(moments.mean, np.float64) + np.asarray(moments.origin, np.float64)
    size = np.sqrt(expected["variance"].max())
    np.testing.assert_allclose(gaps, expected["mean"], atol=rtol * size, rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_match_float64_loop(offset):
    features, labels = clusters(seed=0, n=N, k=K, d=D, offset=offset)
    assert_matches_oracle(from_batch(features, labels), features, labels)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_merging_parts_equals_one_pass(offset):
    features, labels = clusters(seed=1, n=N, k=K, d=D, offset=offset)
    features += np.linspace(0, 3, N, dtype=np.float32)[:, None]  # the parts differ in mean
    total = ClassMoments.empty(K, D)
    for part in range(0, N, 48):
        total = merge(total, from_batch(features[part : part + 48], labels[part : part + 48]))
    assert_matches_oracle(total, features, labels)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(st.integers(0, 2**16))
def test_merge_is_commutative_and_associative(seed):
    features, labels = clusters(seed=seed, n=N, k=K, d=D)
    a, b, c = (from_batch(features[i::3], labels[i::3]) for i in range(3))
    expected = merge(merge(a, b), c)
    for other in (merge(a, merge(b, c)), merge(merge(c, a), b), merge(b, merge(c, a))):
        np.testing.assert_allclose(other.means, expected.means, atol=2e-6)
        higher = ({name: getattr(m, name) for name in HIGHER} for m in (other, expected))
        assert_leaves_close(*higher, rtol=1e-5)


def test_empty_is_neutral_on_both_sides():
    moments, empty = from_batch(*clusters(seed=2, n=N, k=K, d=D, offset=1e4)), ClassMoments.empty(K, D)
    for merged in (merge(empty, moments), merge(moments, empty)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), merged, moments)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), merge(empty, empty))


def test_a_class_missing_from_one_part_takes_the_other_parts_moments():
    features, labels = clusters(seed=3, n=N, k=K, d=D)
    order = np.argsort(labels, kind="stable")
    features, labels = features[order], labels[order]
    halves = [from_batch(features[part], labels[part]) for part in (slice(0, N // 2), slice(N // 2, N))]
    assert float(halves[0].count[K - 1]) == 0
    assert_matches_oracle(merge(*halves), features, labels)


def test_a_single_point_has_no_moments():
    moments = ClassMoments.from_batch(jnp.array([[3.0, 4.0], [1.0, 1.0]]), jnp.array([0, 1]), 2)
    np.testing.assert_array_equal(moments.count, [1, 1])
    np.testing.assert_array_equal(moments.variance, [0, 0])
    np.testing.assert_allclose(moments.means, [[3, 4], [1, 1]])


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (100, 4), (1000, 7), (64, 64)])
def test_class_blocks_hold_every_sample_once_in_a_block_of_its_class(n, k):
    rng = np.random.default_rng(n)
    labels, weights = rng.integers(0, k, (2, n)).astype(np.int32), rng.uniform(1, 2, (2, n)).astype(np.float32)
    blocks = class_blocks(jnp.asarray(labels), k, jnp.asarray(weights))
    for p in (0, 1):
        rows, weight, first = (np.asarray(leaf[p]) for leaf in (blocks.rows, blocks.weight, blocks.first))
        owners = np.broadcast_to(np.asarray(blocks.block_class[p])[:, None], rows.shape)
        np.testing.assert_array_equal(np.sort(rows[weight > 0]), np.arange(n))
        np.testing.assert_array_equal(weight[weight > 0], weights[p][rows[weight > 0]])
        np.testing.assert_array_equal(labels[p][rows[weight > 0]], owners[weight > 0])
        np.testing.assert_array_equal(np.diff(first), -(-np.bincount(labels[p], minlength=k) // block_size(n, k)))
        assert rows.shape == (n // block_size(n, k) + k, block_size(n, k))


def test_weights_count_samples_and_weight_zero_masks_them():
    features, labels = clusters(seed=4, n=N, k=K, d=D, offset=1e4)
    times = np.random.default_rng(0).integers(0, 4, N)
    expected = np.repeat(features, times, axis=0), np.repeat(labels, times)
    features[times == 0] = np.nan  # masked: neither value nor label matters
    assert_matches_oracle(from_batch(features, labels, weights=times.astype(np.float32)), *expected)


def test_moments_without_covariance_merge_too():
    features, labels = clusters(seed=5, n=N, k=K, d=D)
    light = functools.partial(from_batch, covariance=False)
    total = ClassMoments.empty(K, D, covariance=False)
    for part in (slice(0, 100), slice(100, N)):
        total = merge(total, light(features[part], labels[part]))
    expected = from_batch(features, labels)
    for name in ("count", "variance", "means"):
        np.testing.assert_allclose(getattr(total, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert total.covariance is None


def test_coarsening_equals_measuring_superclasses():
    features, labels = clusters(seed=6, n=N, k=6, d=D, offset=1e4)
    superclass = np.array([2, 0, 1, 0, 2, 2])
    coarse = ClassMoments.from_batch(features, labels, 6).coarsen(superclass)
    assert_matches_oracle(coarse, features, superclass[labels])


@pytest.mark.parametrize(
    ("superclass", "message"), [([0, 1], "each of 3"), ([0, 2, 2], "no class has [1]"), ([-1, 0, 1], "no class")]
)
def test_coarsening_refuses_a_bad_mapping(superclass, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        ClassMoments.empty(3, 2).coarsen(superclass)


def test_streaming_many_batches_keeps_five_digits():
    rng = np.random.default_rng(7)
    moments, parts = ClassMoments.empty(2, 3), []
    for _ in range(400):
        labels = rng.integers(0, 2, 500)
        features = (rng.exponential(size=(500, 3)) * [1, 3, 0.1] + 50 + labels[:, None]).astype(np.float32)
        moments = merge(moments, ClassMoments.from_batch(features, labels.astype(np.int32), 2))
        parts.append((features, labels))
    features, labels = map(np.concatenate, zip(*parts, strict=True))
    assert_matches_oracle(moments, features, labels)


@pytest.mark.slow
def test_ten_million_samples_keep_five_digits():
    """A thousand merges; the reference adds the same numbers in float64 about a fixed point."""
    rng = np.random.default_rng(8)
    k, d, size = 2, 2, 10_000
    point = np.array([50.0, 51.0])[:, None] + np.array([[1.0, 3.0]])
    sums = [np.zeros((k, *shape)) for shape in ((), (d,), (d, d), (d,), ())]  # of 1, y, y y^T, y |y|^2, |y|^4
    total = ClassMoments.empty(k, d)
    for _ in range(1000):
        labels = rng.integers(0, k, size).astype(np.int32)
        features = (rng.exponential(size=(size, d)) * [1, 3] + 50 + labels[:, None]).astype(np.float32)
        total = merge(total, ClassMoments.from_batch(features, labels, k))
        for c in range(k):
            y = features[labels == c].astype(np.float64) - point[c]
            square = (y**2).sum(axis=1)
            parts = len(y), y.sum(axis=0), y.T @ y, (y * square[:, None]).sum(axis=0), (square**2).sum()
            for power_sum, part in zip(sums, parts, strict=True):
                power_sum[c] += part
    for c in range(k):
        n = sums[0][c]
        e, second, third, fourth = (power_sum[c] / n for power_sum in sums[1:])
        covariance = second - np.outer(e, e)
        variance, raw = np.trace(covariance), np.trace(second)
        skew = third - 2 * second @ e - raw * e + 2 * (e @ e) * e
        fourth = fourth - 4 * e @ third + 4 * e @ second @ e + 2 * raw * (e @ e) - 3 * (e @ e) ** 2
        assert total.count[c] == n
        np.testing.assert_allclose(total.means[c], point[c] + e, rtol=1e-6)
        np.testing.assert_allclose(total.variance[c], variance, rtol=1e-5)
        np.testing.assert_allclose(total.covariance[c], covariance, rtol=1e-5, atol=1e-5 * variance)
        np.testing.assert_allclose(total.third_moment[c], skew, rtol=1e-5)
        np.testing.assert_allclose(total.fourth_moment[c], fourth, rtol=1e-5)
