import dataclasses

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.certificates import certificate
from dnc.certificates.exact import exact_cantelli
from dnc.certificates.joint import best_factor, joint_bound, smallest_ellipsoid_bound
from dnc.certificates.margin import margin_moments
from dnc.geometry.measure import pair_geometry
from tests import oracles_certificates as oracles

solve_one = jax.jit(smallest_ellipsoid_bound)


def solve(means: np.ndarray, correlations: np.ndarray) -> np.ndarray:
    problems = zip(jnp.asarray(means, jnp.float32), jnp.asarray(correlations, jnp.float32), strict=True)
    return np.array([solve_one(*problem) for problem in problems])


def random_margins(seed: int, count: int, q: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and correlations of `count` problems whose bounds range from 0.01 to above 1."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(count, q, rank)) + rng.normal(size=(count, 1, rank))
    covariance = loading @ loading.swapaxes(1, 2) + 0.05 * np.eye(q)
    deviation = np.sqrt(np.einsum("pii->pi", covariance))
    mean = rng.uniform(0.5, 2.5, size=(count, 1)) * np.exp(rng.normal(size=(count, q)) / 2)
    return mean, covariance / deviation[:, :, None] / deviation[:, None, :]


def semidefinite_optimum(mean: np.ndarray, correlation: np.ndarray) -> float:
    """Vandenberghe, Boyd, Comanor (2007): least mean of z^T P z + 2 q.z + r that is >= 0, and >= 1 where z_j <= 0."""
    size = len(mean)
    p, q, r = cvxpy.Variable((size, size), symmetric=True), cvxpy.Variable((size, 1)), cvxpy.Variable((1, 1))
    multipliers = cvxpy.Variable(size, nonneg=True)
    constraints = [cvxpy.bmat([[p, q], [q.T, r]]) >> 0]
    for j in range(size):
        half = np.zeros((size, 1))
        half[j] = 0.5
        constraints.append(cvxpy.bmat([[p, q + multipliers[j] * half], [(q + multipliers[j] * half).T, r - 1]]) >> 0)
    second = correlation + np.outer(mean, mean)
    objective = cvxpy.trace(second @ p) + 2 * mean @ q[:, 0] + r[0, 0]
    problem = cvxpy.Problem(cvxpy.Minimize(objective), constraints)
    return min(float(problem.solve(solver=cvxpy.CLARABEL)), 1.0)


@pytest.mark.parametrize(("q", "rank"), [(2, 2), (5, 3), (9, 4)])
def test_reaches_the_optimum_of_the_semidefinite_program(q, rank):
    mean, correlation = random_margins(seed=q, count=4, q=q, rank=rank)
    expected = [semidefinite_optimum(*problem) for problem in zip(mean, correlation, strict=True)]
    assert min(expected) < 1
    np.testing.assert_allclose(np.minimum(solve(mean, correlation), 1), expected, rtol=2e-3)


def test_float64_by_default_changes_nothing():
    mean, correlation = (x[0].astype(np.float32) for x in random_margins(seed=2, count=1, q=2, rank=2))
    with jax.enable_x64(True):
        actual = smallest_ellipsoid_bound(jnp.asarray(mean), jnp.asarray(correlation))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, solve(mean[None], correlation[None])[0], rtol=1e-5)


def test_reaches_the_optimum_of_a_float64_search():
    mean, correlation = random_margins(seed=1, count=8, q=5, rank=3)
    actual = solve(mean, correlation)
    expected = [oracles.smallest_ellipsoid_bound(*problem) for problem in zip(mean, correlation, strict=True)]
    np.testing.assert_allclose(np.minimum(actual, 1), np.minimum(expected, 1), rtol=1e-3)


def test_every_factor_is_a_certificate_in_float64():
    mean, correlation = random_margins(seed=1, count=8, q=5, rank=3)
    e, s = jnp.asarray(mean, jnp.float32), jnp.asarray(correlation, jnp.float32)
    factors = jax.jit(jax.vmap(best_factor))(e, jnp.linalg.cholesky(s))
    for value, factor, *margins in zip(solve(mean, correlation), factors, mean, correlation, strict=True):
        exact = oracles.ellipsoid_bound(np.tril(np.float64(factor)), *margins)
        np.testing.assert_allclose(value, exact, rtol=1e-4)


def test_two_margins_by_hand():
    """Symmetric and uncorrelated: a fine grid over symmetric Q. A harmless second margin, or a copy: Cantelli."""
    e = 3.0
    c, r = np.meshgrid(np.linspace(1, 8, 1401), np.linspace(-0.9, 0.9, 901))
    # Q = c^2 [[1, r], [r, 1]], S = I: trace of the inverse, and (E - c)(1, 1) lies on the eigenvector of 1 + r.
    grid = (1 / (1 + r) + 1 / (1 - r)) / c**2 + 2 * (e - c) ** 2 / (c**2 * (1 + r))
    means = np.array([[e, e], [2.0, 1e4], [2.0, 2.0]])
    correlations = np.stack([np.eye(2), np.eye(2), np.ones((2, 2)) + 1e-5 * np.eye(2)])
    symmetric, harmless, copy = solve(means, correlations)
    np.testing.assert_allclose(symmetric, grid.min(), rtol=1e-4)
    np.testing.assert_allclose(harmless, 1 / 5, rtol=1e-4)
    np.testing.assert_allclose(copy, 1 / 5, rtol=1e-2)


def overlapping_classes(k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features = 4 * rng.normal(size=(k, 1, 5)) + rng.normal(size=(k, 60, 5))
    return features.reshape(-1, 5).astype(np.float32), np.repeat(np.arange(k), 60)


def test_nearest_classes_jointly_and_the_rest_by_union():
    geometry = pair_geometry(*overlapping_classes(6), 6)
    terms = geometry.margin_terms
    of_two = {"neighbors": terms.neighbors[:, :2], "axis_covariance": terms.axis_covariance[:, :2, :2]}
    nearest = dataclasses.replace(geometry, margin_terms=dataclasses.replace(terms, **of_two))
    shots = jnp.array([5.0, 50.0])
    moments = margin_moments(geometry, shots)
    pairs = exact_cantelli(geometry, shots).per_pair
    full, partial = (jax.jit(joint_bound)(measured, moments, shots, pairs) for measured in (geometry, nearest))
    union = jnp.minimum(jnp.sum(pairs, axis=2), 1)
    assert np.all(full <= partial + 1e-4)
    assert np.all(partial <= union)
    assert np.any(full < partial - 1e-3)
    assert np.any(partial < union - 1e-3)


@pytest.mark.slow
def test_many_rivals_are_solved_in_time():
    """Forty classes: batched solvers can hang from about 32 rivals on."""
    geometry = pair_geometry(*overlapping_classes(40), 40)
    joint, union = (certificate(name, geometry, [5, 500]) for name in ("exact_joint", "exact_cantelli"))
    assert np.all(joint.per_class <= union.per_class)
    assert np.any(joint.per_class < union.per_class - 0.01)


def test_two_classes_are_cantelli():
    geometry = oracles.geometry(*overlapping_classes(2))
    joint, cantelli = (certificate(name, geometry, [1, 10]) for name in ("exact_joint", "exact_cantelli"))
    np.testing.assert_array_equal(joint.per_class, cantelli.per_class)
