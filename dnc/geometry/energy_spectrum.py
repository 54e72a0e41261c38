"""How early in a spectrum a task lives: its captured energy in the first r directions, in an order without labels.

Two orders. Of features alone, their principal components psi_j, by variance: what a method made large. Of features z
and z' of two views of every image, centered by their common mean and whitened by their common covariance G, the
eigenvectors psi_j of the symmetrized cross-view covariance (E[z z'^T] + E[z' z^T]) / 2, by eigenvalue, which is the
correlation of the two views along them: what a method that aligns views keeps. Of a balanced two-class task Y = +-1 the
first r directions express

    B_r = sum_{j <= r} E[Y psi_j]^2,

up to B, its captured energy, at r = d (Luthra, Bryant, Zhu, Galanti, "Which Tasks Survive Self-Supervised Learning?",
arXiv:2609.38393, as described by third parties).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import linalg

from dnc.geometry.inputs import as_codes, as_numbers
from dnc.geometry.validation import class_counts, parts
from dnc.types import ArrayLike, Float, Int

_MOST_COMPONENTS = 2048
_LARGEST = 1e100  # up to which, and down to whose inverse, float64 holds sums of squares
_LEAST_VARIANCE = 1e-10  # of a principal component, relative to the largest: below, float32 features hold rounding


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Directions in an order that no label decides.

    size: what orders them, from the largest: the variance (1/n) of principal components, or the correlation of two
    views. components: V, a column for each; psi(z) = V^T (z - center) has the identity as covariance.
    """

    size: Float[np.ndarray, " r"]
    components: Float[np.ndarray, "d r"]
    center: Float[np.ndarray, " d"]

    def energy(
        self, features: Float[ArrayLike, "n e"], labels: Int[ArrayLike, " m"], num_classes: int
    ) -> Float[np.ndarray, " r"]:
        """B_r of a labeling for r = 1, 2, ..., in O(n d r); nondecreasing.

        Of k classes, weighted equally: the sum over j <= r of the variance (1/k) of the class means of psi_j, divided
        by k - 1, the most that k classes can use. For two classes it is E[Y psi_j]^2 of the balanced task. What n
        samples add by chance is taken out: (1/k) sum_c var_c(psi_j) / n_c times 1 - 1/k, with 1/(n_c - 1) in the
        variance; then a direction may count below 0, and B_r is the largest sum so far.

        Raises ValueError for features of another dimension or that are not finite, and for a class of fewer than two
        samples.
        """
        x, codes, k = _finite(features, "features"), as_codes(labels, "labels"), num_classes
        if x.shape[1] != len(self.center):
            raise ValueError(f"features have dimension {x.shape[1]}, the spectrum {len(self.center)}: use one encoder")
        counts = class_counts(codes, k)
        if len(codes) != len(x):
            raise ValueError(f"features have {len(x)} rows but labels {len(codes)} entries: give one label per row")
        if counts.min() < 2:
            raise ValueError(f"class {int(counts.argmin())} has {counts.min()} samples: two of every class are needed")
        order = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
        means = np.stack([x[rows].mean(axis=0, dtype=np.float64) for rows in order]) - self.center
        weight = (1 - 1 / k) / (k * counts * (counts - 1.0))
        noise = np.zeros(self.components.shape[1])
        for rows, part in parts(x):
            residual = (part - self.center - means[codes[rows]]) @ self.components
            noise += weight[codes[rows]] @ residual**2
        shares = ((means @ self.components).var(axis=0) - noise) / (k - 1)
        return np.maximum.accumulate(np.maximum(np.cumsum(shares), 0))


def feature_spectrum(features: Float[ArrayLike, "n d"]) -> Spectrum:
    """Principal components by variance, in float64; O(n d^2 + d^3), or O(n^2 d + n^3) for fewer samples than that.

    Components whose variance is below 1e-10 of the largest are left out. Raises ValueError for features that are not
    finite, and for equal ones.
    """
    x = _finite(features, "features")
    n, d = x.shape
    center = x.mean(axis=0, dtype=np.float64)
    if n < d:
        x = x - center
        values, vectors = linalg.eigh(x @ x.T / n)
        vectors = x.T @ vectors / np.sqrt(n * np.maximum(values, np.finfo(float).tiny))
    else:
        total = np.zeros((d, d))
        for _, part in parts(x):
            part -= center
            total += part.T @ part
        values, vectors = linalg.eigh(total / n)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > _LEAST_VARIANCE * values[0]
    if not kept.any():
        raise ValueError("all features are equal: there is no direction")
    return Spectrum(values[kept], vectors[:, kept] / np.sqrt(values[kept]), center)


def view_spectrum(first: Float[ArrayLike, "n d"], second: Float[ArrayLike, "m e"]) -> Spectrum:
    """The directions of two views of the same n images, in float64; O(n d^2 + d^3). Moments divide by 2 n.

    Raises ValueError for views of different shapes, fewer images than dimensions, values that are not finite, and
    features whose common covariance is singular.
    """
    z, other = (_finite(view, name).astype(np.float64) for view, name in ((first, "first"), (second, "second")))
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
    return Spectrum(values[::-1], vectors[:, ::-1] / scale[:, None], center)


def early_energy(
    features: Float[ArrayLike, "n d"], labelings: Mapping[str, tuple[Int[ArrayLike, " n"], int]]
) -> dict[str, dict[int, float]]:
    """B_r of labelings (labels and their number of classes, by name) for r = 1, 2, 4, ... and all principal components.

    Empty where nothing varies, and where both samples and dimensions are more than 2,048: it would take minutes.
    """
    x = _finite(features, "features")
    if min(x.shape) > _MOST_COMPONENTS or (x == x[:1]).all():
        return {}
    if not 1 / _LARGEST < (largest := max(float(x.max()), -float(x.min()))) < _LARGEST:
        x = x.astype(np.float64) / largest  # no energy depends on scale; squares must neither overflow nor vanish
    order = feature_spectrum(x)
    most = len(order.size)
    ranks = sorted({*(2**e for e in range(most.bit_length()) if 2**e < most), most})
    found = {name: order.energy(x, labels, k) for name, (labels, k) in labelings.items()}
    return {name: {r: float(energy[r - 1]) for r in ranks} for name, energy in found.items()}


def _finite(features: Float[ArrayLike, "n d"], name: str) -> Float[np.ndarray, "n d"]:
    x = as_numbers(features, name)
    x = x if x.dtype.kind == "f" and x.dtype.itemsize in (4, 8) else x.astype(np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape [n, d], n and d positive, got {x.shape}")
    if not np.isfinite(x).all():
        row = int(np.argmin(np.isfinite(x).all(axis=1)))
        raise ValueError(f"{name} hold values that are NaN or Inf (first in row {row}): drop these rows")
    return x
