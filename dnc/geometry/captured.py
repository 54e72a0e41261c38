"""Captured energy: the share of a task that a linear readout of the features expresses.

For a balanced two-class task Y = +-1 and features F, centered and whitened by their total covariance, B = ||E[Y F]||^2
(Luthra, Bryant, Zhu, Galanti, "Which Tasks Survive Self-Supervised Learning?", arXiv:2609.38393). With D the difference
of the class means and S the mean of the two within-class covariances, the total covariance is S + D D^T / 4, so that

    B = q / (1 + q),   q = D^T S^-1 D / 4,

Fisher's discriminant. In whitened coordinates the within-class variance along the axis is 1 - B, and the squared
distance of the means 4 B. Hence, averaged over the two classes,

    directional CDNV = (1 - B) / (4 B),   CDNV = (r - B) / (2 B)   for features of rank r,

the least directional CDNV that any linear map gives: what is left after the best choice of the other directions.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import linalg

from dnc import errors
from dnc.geometry.moments import ClassMoments
from dnc.types import Float, Int

LEAST_EIGENVALUE = 1e-6  # per dimension, of a correlation matrix from float32 covariances
ESTIMATES = ("corrected", "plug-in", "shrunk")


@dataclasses.dataclass(frozen=True)
class CapturedEnergy:
    """Of every pair of classes, and of the labeling.

    per_pair: B of each two-class task, weighted equally whatever the classes' sizes; nan on the diagonal.
    whole: tr(T^-1 S_B) / (k - 1) with the between-class covariance S_B of equally weighted classes and T = S_W + S_B:
      the mean share over the k - 1 directions that a labeling of k classes can use. For two classes it is B.
    rank: r, the dimension of the whitened features.
    """

    per_pair: Float[np.ndarray, "k k"]
    whole: float
    rank: int

    @property
    def directional_cdnv(self) -> Float[np.ndarray, "k k"]:
        """(1 - B) / (4 B): of the whitened features, mean over the two classes."""
        return (1 - self.per_pair) / (4 * self.per_pair)

    @property
    def cdnv(self) -> Float[np.ndarray, "k k"]:
        """(r - B) / (2 B): of the whitened features."""
        return (self.rank - self.per_pair) / (2 * self.per_pair)

    def error_bound(self, shots: Sequence[int]) -> Float[np.ndarray, "m k k"]:
        """Bound on the two-class error of nearest centers of m shots a class in whitened coordinates, at most 1.

        (1 - B) + (r - B)/m + (1 - B)/(1 - B + 2 m B). It is vacuous for m < r, and stays above 1 - B.
        """
        m, b = np.asarray(shots, np.float64)[:, None, None], self.per_pair[None]
        return np.minimum(1, (1 - b) + (self.rank - b) / m + (1 - b) / (1 - b + 2 * m * b))


def captured_energy(moments: ClassMoments, estimate: str = "corrected") -> CapturedEnergy:
    """B of every two-class task and of the labeling, from class moments with covariances; O(k^2 d^3) in float64.

    estimate:
      "plug-in": of the sample itself. For the population it is too large: S^-1 by n/(n - k - d - 1), where n samples of
        k classes enter, and the distance of the means by their noise.
      "corrected": with both taken out of q, exactly so on average for Gaussian classes of one covariance and one size:
        q (n - k - d - 1)/n - (mean of 1/n_c) d/k, at least 0.
      "shrunk": the plug-in with (1 - rho) S + rho tr(S)/d I, rho by Ledoit and Wolf (2004), for fewer samples than
        dimensions. It is far too small where the task lives in directions of little variance, which it inflates.

    Raises ValueError for moments without covariances, fewer than two classes, classes with fewer than two samples, an
    unknown estimate, fewer samples of two classes than the estimate needs (more than d + 3 to correct, more than d + 1
    to plug in), and within-class covariances too near to singular for the float32 that they come in.
    """
    if moments.covariance is None or moments.fourth_moment is None:
        raise ValueError("moments have no covariances: make them with covariance=True")
    errors.check_known("estimate", [estimate], ESTIMATES)
    counts, means = (np.asarray(x, np.float64) for x in (moments.count, moments.mean))
    covariances = np.asarray(moments.covariance, np.float64)
    fourth = np.asarray(moments.fourth_moment, np.float64)
    if len(counts) < 2:
        raise ValueError("moments are of one class: captured energy needs two")
    if (few := np.flatnonzero(counts < 2)).size:
        raise ValueError(f"class {few[0]} has {counts[few[0]]:g} samples: captured energy needs two of every class")

    def energies(classes: list[int]) -> Float[np.ndarray, " e"]:
        """q/(1 + q) of the eigenvalues q of S^-1 S_B, one for each direction that these classes span."""
        k, n, d = len(classes), counts[classes].sum(), means.shape[1]
        least = d + k + (1 if estimate == "corrected" else -1)
        if estimate != "shrunk" and n <= least:
            raise ValueError(
                f'{n:g} samples of classes {classes[:5]}: estimate="{estimate}" needs more than {least} in {d} '
                'dimensions; give more, project the features to fewer dimensions, or choose estimate="shrunk"'
            )
        within = covariances[classes].mean(axis=0)
        if estimate == "shrunk":
            within = _shrunk(within, fourth[classes].mean(), n)
        center = means[classes].mean(axis=0)
        between = (means[classes] - center).T / np.sqrt(k)  # S_B = between between^T
        q = linalg.eigvalsh(_quadratic(within, between))[1:]
        if estimate == "corrected":
            q = np.maximum(0, q * (n - k - d - 1) / n - d * np.mean(1 / counts[classes]) / k)
        return q / (1 + q)

    k, d = means.shape
    per_pair = np.full((k, k), np.nan)
    for i in range(k):
        for j in range(i):
            per_pair[i, j] = per_pair[j, i] = energies([j, i])[0]
    return CapturedEnergy(per_pair, float(energies(list(range(k))).mean()), d)


@dataclasses.dataclass(frozen=True)
class Box:
    """Where the class means of several independent two-class tasks lie, in units of the features' deviation.

    sides: sqrt(B_t), the half-sides of the box. corners: the mean m_Y of every combination of labels, along the tasks'
    directions; row i has the labels `combinations[i]`, -1 or 1. deviation: mean over combinations of the squared
    distance of m_Y from the corner (sqrt(B_t) Y_t), which independent tasks keep at most at `bound` = sum_t (1 - B_t).
    """

    sides: Float[np.ndarray, " t"]
    combinations: Int[np.ndarray, "c t"]
    corners: Float[np.ndarray, "c t"]

    @property
    def deviation(self) -> float:
        return float(np.mean(np.sum((self.corners - self.sides * self.combinations) ** 2, axis=1)))

    @property
    def bound(self) -> float:
        return float(np.sum(1 - self.sides**2))


def box(features: Float[np.ndarray, "n d"], tasks: Int[np.ndarray, "n t"]) -> Box:
    """The box of t two-class tasks with labels -1 and 1, every combination of which weighs the same.

    P_t is the projection of the whitened features on E[Y_t F], scaled to variance 1, so that its covariance with Y_t is
    sqrt(B_t), and E||m_Y - (sqrt(B_t) Y_t)||^2 <= sum_t Var(P_t - sqrt(B_t) Y_t) = sum_t (1 - B_t). Moments are those
    of the sample (plug-in), in float64, O(n d^2 + d^3).

    Raises ValueError for labels other than -1 and 1, a combination without samples, and a singular covariance.
    """
    x, y = np.asarray(features, np.float64), np.asarray(tasks)
    if y.ndim != 2 or len(x) != len(y) or not np.isin(y, (-1, 1)).all():
        raise ValueError(f"tasks must be labels -1 and 1 of shape [{len(x)}, t], got shape {y.shape}")
    t = y.shape[1]
    combinations = np.array(list(itertools.product((-1, 1), repeat=t)))
    members = [np.flatnonzero((y == row).all(axis=1)) for row in combinations]
    if missing := [row.tolist() for row, rows in zip(combinations, members, strict=True) if not rows.size]:
        raise ValueError(f"no sample has the labels {missing[0]}: every combination of the tasks needs samples")
    weights = np.zeros(len(x))
    for rows in members:
        weights[rows] = 1 / (len(combinations) * rows.size)
    x = x - weights @ x
    covariance = (weights[:, None] * x).T @ x
    beta = (weights[:, None] * x).T @ y
    directions = np.linalg.solve(covariance, beta)
    sides = np.sqrt(np.diag(beta.T @ directions))
    projected = x @ directions / sides
    return Box(sides, combinations, np.stack([projected[rows].mean(axis=0) for rows in members]))


def _shrunk(covariance: Float[np.ndarray, "d d"], fourth_moment: float, samples: float) -> Float[np.ndarray, "d d"]:
    """rho from moments alone: E||r||^4 - tr(S^2) is n times the variance of S's entries."""
    d, square = len(covariance), np.sum(covariance**2)
    spread = square - np.trace(covariance) ** 2 / d
    rho = np.clip((fourth_moment - square) / samples / spread, 0, 1) if spread > 0 else 0.0
    return (1 - rho) * covariance + rho * np.trace(covariance) / d * np.eye(d)


def _quadratic(covariance: Float[np.ndarray, "d d"], vectors: Float[np.ndarray, "d j"]) -> Float[np.ndarray, "j j"]:
    """V^T S^-1 V, in units of each feature's deviation."""
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale) if scale.all() else np.zeros_like(covariance)
    if linalg.eigvalsh(correlation, subset_by_index=[0, 0])[0] < LEAST_EIGENVALUE * len(covariance):
        raise ValueError(
            "a within-class covariance is singular, or too near to it for float32: remove features that are constant "
            'or combinations of others, project to the principal components that matter, or choose estimate="shrunk"'
        )
    scaled = vectors / scale[:, None]
    return scaled.T @ linalg.cho_solve(linalg.cho_factor(correlation), scaled)
