"""Slow float64 NumPy references for margins, certificates and few-shot error: loops, one formula at a time."""

import itertools
import math

import numpy as np
import scipy.optimize

from dnc.geometry.pairs import PairGeometry


def geometry(features: np.ndarray, labels: np.ndarray) -> PairGeometry:
    """Pair geometry in float64, by definition; neighbors are all other classes, in order."""
    z = [np.asarray(features, np.float64)[labels == c] for c in range(int(labels.max()) + 1)]
    k = len(z)
    mu = np.array([one.mean(axis=0) for one in z])
    a = [one - mean for one, mean in zip(z, mu, strict=True)]
    sigma = [one.T @ one / len(one) for one in a]
    norm2 = [np.sum(one**2, axis=1) for one in a]
    distance, directional, third = np.zeros((k, k)), np.full((k, k), np.nan), np.zeros((k, k))
    rivals = np.array([[j for j in range(k) if j != i] for i in range(k)])
    axis = np.zeros((k, k - 1, k - 1))
    for i, j in itertools.product(range(k), repeat=2):
        diff = mu[i] - mu[j]
        distance[i, j] = diff @ diff
        if distance[i, j] > 0:
            directional[i, j] = diff @ sigma[i] @ diff / distance[i, j]
        third[i, j] = np.mean((a[j] @ diff) * norm2[j])
        if i != j:
            axis[i, list(rivals[i]).index(j)] = [diff @ sigma[i] @ (mu[i] - mu[other]) for other in rivals[i]]
    return PairGeometry(
        counts=np.array([float(len(one)) for one in z]),
        means=mu,
        variance=np.array([one.mean() for one in norm2]),
        fourth_moment=np.array([np.mean(one**2) for one in norm2]),
        squared_distance=distance,
        directional_variance=directional,
        third_moment=third,
        covariance_overlap=np.array([[np.trace(s @ t) for t in sigma] for s in sigma]),
        neighbors=rivals,
        axis_covariance=axis,
        overlap="exact",
    )


def enumerated_margins(classes: list[np.ndarray], i: int, m: int) -> np.ndarray:
    """All equally likely values of (Delta_ij)_j for a query of class i: every query, every m-tuple of shots."""
    centroids = [
        np.array([np.mean(one[list(shots)], axis=0) for shots in itertools.product(range(len(one)), repeat=m)])
        for one in classes
    ]
    rows = []
    for x in classes[i]:
        distances = [np.sum((x - one) ** 2, axis=1) for one in centroids]
        rows.extend([d - chosen[i] for d in chosen] for chosen in itertools.product(*distances))
    return np.array(rows)


def sampled_margins(rng: np.random.Generator, classes: list[np.ndarray], i: int, m: int, draws: int) -> np.ndarray:
    """[draws, k] values of Delta_ij: support and query drawn independently, with replacement."""
    x = classes[i][rng.integers(len(classes[i]), size=draws)]
    centroids = [one[rng.integers(len(one), size=(draws, m))].mean(axis=1) for one in classes]
    distances = np.stack([np.sum((x - one) ** 2, axis=1) for one in centroids], axis=1)
    return distances - distances[:, [i]]


def sampled_errors(
    rng: np.random.Generator, classes: list[np.ndarray], m: int, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Monte Carlo P(error | class i) [k] and P(Delta_ij <= 0 | class i) [k, k], drawn as `sampled_margins`."""
    k = len(classes)
    centroids = np.stack([one[rng.integers(len(one), size=(draws, m))].mean(axis=1) for one in classes], axis=1)
    queries = np.stack([one[rng.integers(len(one), size=draws)] for one in classes], axis=1)
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
    found = scipy.optimize.minimize_scalar(value, bounds=(math.log(lowest), 30.0), options={"xatol": 1e-12})
    return (k - 1) * min(found.fun, value(math.log(lowest)))


def luthra2026_term(g: PairGeometry, i: int, j: int, m: float) -> float:
    """One ordered pair's term, inf where undefined."""
    d2 = g.squared_distance[i, j]
    w, v = g.directional_variance[i, j] / d2, (g.variance[i] + g.variance[j]) / d2
    theta = (g.fourth_moment[i] + g.fourth_moment[j]) / d2**2
    a_t, a_s, a_q = 4 / m * (v * v + v / 4), v / m, (theta + 2 * (m - 1) * v * v) / m**3
    mean = 1 + (g.variance[j] - g.variance[i]) / (m * d2)
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
        options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-14, "gtol": 1e-10}
        found = scipy.optimize.minimize(value_and_gradient, first[lower], jac=True, method="L-BFGS-B", options=options)
        return float(found.fun)

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
