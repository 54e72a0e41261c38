"""How early in the spectrum of two views a task lives: whether a method that aligns views keeps it.

Features z and z' of two views of every image are centered by their common mean and whitened by their common covariance
G. The symmetrized cross-view covariance C = (E[z z'^T] + E[z' z^T]) / 2 then has eigenvectors psi_1, psi_2, ... and
eigenvalues lambda_1 >= lambda_2 >= ..., the correlations of the two views along them. No label enters. Of a balanced
two-class task Y = +-1, the first r of them express

    B_r = sum_{j <= r} E[Y psi_j]^2,

up to B, its captured energy, at r = d (Luthra, Bryant, Zhu, Galanti, "Which Tasks Survive Self-Supervised Learning?",
arXiv:2609.38393, as described by third parties).
"""

import dataclasses

import numpy as np
from scipy import linalg

from dnc.geometry.inputs import as_codes, as_numbers
from dnc.geometry.validation import class_counts
from dnc.types import ArrayLike, Float, Int


@dataclasses.dataclass(frozen=True)
class ViewSpectrum:
    """Directions in the order in which two views agree along them.

    correlation: lambda_j, from the largest; at most 1. components: V, one column for each; psi(z) = V^T (z - center)
    has the identity as covariance over both views.
    """

    correlation: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "d d"]
    center: Float[np.ndarray, " d"]

    def energy(
        self, features: Float[ArrayLike, "n e"], labels: Int[ArrayLike, " m"], num_classes: int
    ) -> Float[np.ndarray, " d"]:
        """B_r of a labeling for r = 1, ..., d, in O(n d^2 + k d^2); nondecreasing.

        Of k classes, weighted equally: the sum over j <= r of the variance (1/k) of the class means of psi_j, divided
        by k - 1, the most that k classes can use. For two classes it is E[Y psi_j]^2 of the balanced task. What n
        samples add by chance is taken out: (1/k) sum_c var_c(psi_j) / n_c, with 1/(n_c - 1) in the variance; then a
        direction may count below 0, and B_r is the largest sum so far.

        Raises ValueError for features of another dimension or that are not finite, and for a class of fewer than two
        samples.
        """
        x, codes = _finite(features, "features"), as_codes(labels, "labels")
        if x.shape[1] != len(self.center):
            raise ValueError(f"features have dimension {x.shape[1]}, the views {len(self.center)}: use one encoder")
        counts = class_counts(codes, num_classes, "labels")
        if len(codes) != len(x):
            raise ValueError(f"features have {len(x)} rows but labels {len(codes)} entries: give one label per row")
        if num_classes < 2 or counts.min() < 2:
            raise ValueError(f"class {int(counts.argmin())} has {counts.min()} samples: two of each of two are needed")
        psi = (x - self.center) @ self.components
        means = np.stack([psi[codes == c].mean(axis=0) for c in range(num_classes)])
        noise = np.stack([psi[codes == c].var(axis=0, ddof=1) / counts[c] for c in range(num_classes)])
        shares = (means.var(axis=0) - (1 - 1 / num_classes) * noise.mean(axis=0)) / (num_classes - 1)
        return np.maximum.accumulate(np.maximum(np.cumsum(shares), 0))


def view_spectrum(first: Float[ArrayLike, "n d"], second: Float[ArrayLike, "m e"]) -> ViewSpectrum:
    """The spectrum of two views of the same n images, in float64; O(n d^2 + d^3). Moments divide by 2 n.

    Raises ValueError for views of different shapes, fewer images than dimensions, values that are not finite, and
    features whose common covariance is singular.
    """
    z, other = _finite(first, "first"), _finite(second, "second")
    if z.shape != other.shape:
        raise ValueError(f"first has shape {z.shape} and second {other.shape}: give two views of the same images")
    n, d = z.shape
    if n <= d:
        raise ValueError(f"{n} images in {d} dimensions: give more images than dimensions")
    center = (z.mean(axis=0) + other.mean(axis=0)) / 2
    z, other = z - center, other - center
    scale = np.sqrt(np.mean(z**2 + other**2, axis=0) / 2)
    if not scale.all():
        raise ValueError(f"feature {int(np.argmin(scale))} is constant: leave out constant features")
    z, other = z / scale, other / scale
    total = (z.T @ z + other.T @ other) / (2 * n)
    if linalg.eigvalsh(total, subset_by_index=[0, 0])[0] < 1e-9 * d:
        raise ValueError("the views' covariance is singular: project the features to the principal components first")
    cross = z.T @ other / n
    values, vectors = linalg.eigh((cross + cross.T) / 2, total)
    return ViewSpectrum(values[::-1], vectors[:, ::-1] / scale[:, None], center)


def _finite(features: Float[ArrayLike, "n d"], name: str) -> Float[np.ndarray, "n d"]:
    x = np.asarray(as_numbers(features, name), np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape [n, d], n and d positive, got {x.shape}")
    if not np.isfinite(x).all():
        row = int(np.argmin(np.isfinite(x).all(axis=1)))
        raise ValueError(f"{name} hold values that are NaN or Inf (first in row {row}): drop these rows")
    return x
