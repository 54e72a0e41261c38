"""Slow float64 references for margins, certificates and few-shot error: loops, one formula at a time."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from dnc.geometry.pairs import MarginTerms, PairGeometry
from tests import oracles


def geometry(features: np.ndarray, labels: np.ndarray) -> PairGeometry:
    """`oracles.pair_geometry` in the widest precision that JAX has enabled; neighbors are all others, in order."""
    values = oracles.pair_geometry(features, labels)
    k = len(values["mean"])
    rivals = np.array([[j for j in range(k) if j != i] for i in range(k)])
    axis = values["axis_covariance"][np.arange(k)[:, None, None], rivals[:, :, None], rivals[:, None, :]]
    per_class = np.float64(values["count"]), values["mean"], values["variance"], values["fourth_moment"]
    pairs = values["squared_distance"], values["directional_variance"]
    terms = values["third_moment"], values["covariance_overlap"], rivals, axis
    return PairGeometry(*map(jnp.asarray, (*per_class, *pairs)), MarginTerms(*map(jnp.asarray, terms)))


def enumerated_margins(classes: list[np.ndarray], i: int, m: int) -> np.ndarray:
    """All equally likely values of (Delta_ij)_j for a query of class i: every query, every m-tuple of shots."""
    centroids = [
        np.array([np.mean(shots, axis=0) for shots in itertools.product(samples, repeat=m)]) for samples in classes
    ]
    rows = []
    for x in classes[i]:
        distances = [np.sum((x - centers) ** 2, axis=1) for centers in centroids]
        rows.extend([d - chosen[i] for d in chosen] for chosen in itertools.product(*distances))
    return np.array(rows)


def sampled_margins(rng: np.random.Generator, classes: list[np.ndarray], i: int, m: int, draws: int) -> np.ndarray:
    """[draws, k] values of Delta_ij: support and query drawn independently, with replacement."""
    x = classes[i][rng.integers(len(classes[i]), size=draws)]
    centroids = [z[rng.integers(len(z), size=(draws, m))].mean(axis=1) for z in classes]
    distances = np.stack([np.sum((x - centers) ** 2, axis=1) for centers in centroids], axis=1)
    return distances - distances[:, [i]]


def sampled_errors(
    rng: np.random.Generator, classes: list[np.ndarray], m: int, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Monte Carlo P(error | class i) [k] and P(Delta_ij <= 0 | class i) [k, k], drawn as `sampled_margins`."""
    k = len(classes)
    centroids = np.stack([z[rng.integers(len(z), size=(draws, m))].mean(axis=1) for z in classes], axis=1)
    queries = np.stack([z[rng.integers(len(z), size=draws)] for z in classes], axis=1)
    distances = np.sum((queries[:, :, None] - centroids[:, None]) ** 2, axis=3)
    wrong = distances <= np.einsum("sii->si", distances)[:, :, None]
    wrong[:, np.arange(k), np.arange(k)] = False
    return wrong.any(axis=2).mean(axis=0), wrong.mean(axis=0)


def luthra2025(w: float, v: float, v_sqrt: float, m: int, k: int) -> float:
    """The published formula, minimized over a by bounded search on log a. `v` carries the factor 1/2."""

    def value(log_a: float) -> float:
        a = math.exp(log_a)
        root = 0.5 - 2 / a - 2**1.5 / (a * m)
        return w / root**2 + a / 4 * (2 / math.sqrt(m) * (v_sqrt + v) + v / m)

    lowest = max(5.0, 2 * (2 + 2**1.5 / m) * (1 + 1e-9))
    optimum = scipy.optimize.minimize_scalar(value, bounds=(math.log(lowest), 30.0), options={"xatol": 1e-12})
    return (k - 1) * min(optimum.fun, value(math.log(lowest)))


def luthra2026_term(g: dict[str, np.ndarray], i: int, j: int, m: float) -> float:
    """One ordered pair's term from `oracles.pair_geometry`, inf where undefined."""
    w, v, theta = (g[name][i, j] for name in ("directional_cdnv", "cdnv", "theta"))
    a_t, a_s, a_q = 4 / m * (v * v + v / 4), v / m, (theta + 2 * (m - 1) * v * v) / m**3
    mean = 1 + (g["variance"][j] - g["variance"][i]) / (m * g["squared_distance"][i, j])
    noise = (math.sqrt(a_t) + math.sqrt(a_s) + math.sqrt(a_q)) ** 2
    return (4 * w + noise) / mean**2 if mean > 0 else math.inf


def union(terms: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Clip pairs, sum, clip classes, average: (bound, per_class, per_pair) of one number of shots."""
    per_pair = np.minimum(terms, 1)
    np.fill_diagonal(per_pair, 0)
    per_class = np.minimum(per_pair.sum(axis=1), 1)
    return float(per_class.mean()), per_class, per_pair


def ellipsoid_bound(factor: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """tr(Q^-1 (S + (E-c)(E-c)^T)) for Q = L L^T, by inverting Q."""
    q = factor @ factor.T
    gap = mean - np.sqrt(np.diag(q))
    return float(np.trace(np.linalg.inv(q) @ (covariance + np.outer(gap, gap))))


def smallest_ellipsoid_bound(mean: np.ndarray, covariance: np.ndarray, starts: int = 3) -> float:
    """Its minimum over L, by SciPy's L-BFGS-B with the gradient by hand, from several starts."""
    size = len(mean)
    lower = np.tril_indices(size)
    root = np.linalg.cholesky(covariance)
    rng = np.random.default_rng(0)

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        factor = np.zeros((size, size))
        factor[lower] = flat
        c = np.linalg.norm(factor, axis=1)
        inverse = np.linalg.inv(factor)
        x = inverse @ np.column_stack([root, mean - c])
        by_gap = 2 * inverse.T @ x[:, -1]
        gradient = -2 * inverse.T @ x @ x.T - (by_gap / c)[:, None] * factor
        return float(np.sum(x**2)), gradient[lower]

    def search(first: np.ndarray) -> float:
        method = {"method": "L-BFGS-B", "options": {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-14, "gtol": 1e-10}}
        return float(scipy.optimize.minimize(value_and_gradient, first[lower], jac=True, **method).fun)

    spread = [np.ones(size)] + [np.exp(0.3 * rng.normal(size=size)) for _ in range(starts - 1)]
    return min(search((noise * (mean + 1 / mean))[:, None] * root) for noise in spread)


def few_shot_error(features: np.ndarray, labels: np.ndarray, support: list[np.ndarray]) -> np.ndarray:
    """[k, k] fraction of class i's samples outside its support that are at least as near to centroid j as to i."""
    k = len(support)
    centroids = np.array([features[chosen].mean(axis=0) for chosen in support])
    wrong = np.zeros((k, k))
    for i in range(k):
        queries = np.setdiff1d(np.flatnonzero(labels == i), support[i])
        for j in set(range(k)) - {i}:
            own = np.sum((features[queries] - centroids[i]) ** 2, axis=1)
            wrong[i, j] = np.mean(np.sum((features[queries] - centroids[j]) ** 2, axis=1) <= own)
    return wrong
