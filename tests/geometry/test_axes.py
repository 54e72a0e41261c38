import functools
import itertools

import numpy as np
import pytest

import dnc
from dnc.geometry import axes
from tests import oracles
from tests.samples import clusters, factorial

decision_axes = axes.decision_axes


@functools.cache
def measured(seed):
    features, labels = factorial(seed)
    sizes = {name: int(y.max()) + 1 for name, y in labels.items()}
    axes_of = {name: decision_axes(features, y, num_classes=sizes[name]) for name, y in labels.items()}
    return features, labels, sizes, axes_of


def shares_of(name, features, labels, sizes):
    others = [other for other in labels if other != name]
    rest = [labels[other] for other in others], tuple(sizes[other] for other in others)
    return axes.interference_budget(features, labels[name], sizes[name], *rest)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_decision_axes_match_float64_loop(offset):
    features, labels = clusters(seed=0, n=300, k=4, d=10, offset=offset)
    actual = decision_axes(features, labels, num_classes=4)
    unit, distance, pooled, of_pair = oracles.decision_axes(features, labels)
    np.testing.assert_allclose(actual.unit, unit, atol=1e-6)
    np.testing.assert_allclose(actual.distance, distance, rtol=1e-5)
    np.testing.assert_allclose(actual.variance, pooled, rtol=1e-5)
    np.testing.assert_allclose(actual.pair_variance, of_pair, rtol=1e-5)
    assert actual.num_classes == 4


def test_cosines_and_bounds_match_float64_loop():
    features, labels, sizes, axes_of = measured(0)
    a, b = oracles.decision_axes(features, labels["factor0"]), oracles.decision_axes(features, labels["factor1"])
    first, second = axes_of["factor0"], axes_of["factor1"]
    np.testing.assert_allclose(axes.cosines(first, second), np.abs(a[0] @ b[0].T), atol=1e-6)
    for bound, pooled in ((axes.orthogonality_bound, 2), (axes.pair_orthogonality_bound, 3)):
        expected = oracles.orthogonality_bound(a, b, sizes["factor0"], sizes["factor1"], pooled)
        np.testing.assert_allclose(bound(first, second), expected, rtol=1e-5)


def test_two_class_bound_is_the_papers():
    # Proposition 4.2: min(2 (d1/d2) sqrt(W1), 2 (d2/d1) sqrt(W2))
    features, labels = factorial(1, levels=(2, 2))
    a, b = (decision_axes(features, y, num_classes=2) for y in labels.values())
    w1, w2 = float(a.variance[0] / a.distance[0] ** 2), float(b.variance[0] / b.distance[0] ** 2)
    ratio = float(a.distance[0] / b.distance[0])
    expected = min(2 * ratio * w1**0.5, 2 / ratio * w2**0.5)
    np.testing.assert_allclose(axes.orthogonality_bound(a, b), [[expected]], rtol=1e-5)
    np.testing.assert_allclose(axes.pair_orthogonality_bound(a, b), [[expected]], rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cosine_never_exceeds_the_bound_on_a_factorial_sample(seed):
    for first, second in itertools.permutations(measured(seed)[-1].values(), 2):
        cosine, bound = axes.cosines(first, second), axes.orthogonality_bound(first, second)
        assert (np.asarray(cosine) <= np.asarray(bound) * (1 + 1e-5)).all()


def test_pair_form_is_violated_where_the_valid_bound_holds():
    # class 2 of the first labeling carries all of the noise, in the direction of the second labeling's axis
    first, second = (y.ravel() for y in np.meshgrid(np.arange(3), np.arange(2), indexing="ij"))
    first, second = np.repeat(first, 4), np.repeat(second, 4)
    features = np.stack([10.0 * first + np.where(first == 2, 3.0 * second, 0), 0.1 * second], 1).astype(np.float32)
    a, b = decision_axes(features, first, num_classes=3), decision_axes(features, second, num_classes=2)
    cosine = np.asarray(axes.cosines(a, b))
    assert (cosine > 1.01 * np.asarray(axes.pair_orthogonality_bound(a, b))).any()
    assert (cosine <= np.asarray(axes.orthogonality_bound(a, b)) * (1 + 1e-5)).all()


def test_interference_matches_float64_loop():
    features, labels, sizes, _ = measured(0)
    expected = oracles.interference(features, labels["factor0"], [labels["factor1"], labels["factor2"]])
    np.testing.assert_allclose(shares_of("factor0", features, labels, sizes), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_interference_of_all_tasks_together_stays_below_one(seed):
    features, labels, sizes, _ = measured(seed)
    for name in labels:
        shares = np.asarray(shares_of(name, features, labels, sizes))
        assert (shares >= 0).all()
        assert (shares.sum(axis=1) <= 1 + 1e-5).all()


def test_interference_is_one_where_another_task_is_all_of_the_noise_and_zero_without_variance():
    first, second = (np.tile(y.ravel(), 5) for y in np.meshgrid(np.arange(2), np.arange(2)))
    for columns, share in (((first + 0.2 * second, 0 * first), 1.0), ((first, second), 0.0)):
        features = np.stack(columns, axis=1).astype(np.float32)
        np.testing.assert_allclose(axes.interference_budget(features, first, 2, [second], (2,)), [[share]], rtol=1e-5)


def test_axis_between_coincident_means_is_nan():
    features = np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [5, 5], [5, 6]], np.float32)
    unit = axes.decision_axes(features, np.array([0, 0, 1, 1, 2, 2]), 3).unit
    assert np.isnan(unit[0]).all()
    assert np.isfinite(unit[1:]).all()


@pytest.mark.parametrize("noise", [0, 1e-8])
def test_orthogonal_tasks_without_noise_do_not_interfere(noise):
    """What float32 rounds is neither interference nor a violation of the bound, which is then near 0."""
    rng = np.random.default_rng(0)
    first, second = np.arange(64) % 2, np.arange(64) // 2 % 2
    q = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    features = np.outer(first, q[0]) + 3 * np.outer(second, q[1]) + 5 * q[3] + noise * rng.normal(size=(64, 32))
    result = dnc.analyze(features, {"first": first, "second": second}, repeats=1)
    assert result.interference == {"first": {"second": 0.0}, "second": {"first": 0.0}}
    assert result.axes["first", "second"].violations == 0
    assert result.axes["first", "second"].cosine["max"] < 1e-6
