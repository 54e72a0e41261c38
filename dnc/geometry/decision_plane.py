"""Samples of two classes in a plane: along their decision axis, all that the nearest mean looks at, and across it."""

import numpy as np
import scipy.linalg

from dnc.geometry.moments import RESOLUTION
from dnc.types import Float


def decision_plane(
    first: Float[np.ndarray, "a d"], second: Float[np.ndarray, "b d"]
) -> tuple[Float[np.ndarray, "a 2"], Float[np.ndarray, "b 2"]]:
    """Coordinates of the samples in the plane of the decision axis and the widest direction orthogonal to it.

        x -> (u . (x - c), w . (x - c)) / (d_ij / 2),     c = (mu_i + mu_j) / 2,   u = (mu_j - mu_i) / d_ij

    so that the means are (-1, 0) and (1, 0), and the sign of the first coordinate tells which mean is nearer. w is the
    top principal direction of the residuals of both classes with u projected out; its largest entry is positive. It is
    zero where nothing varies across the axis. Where the means coincide there is no axis: nan.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    origin = np.concatenate([first, second]).mean(axis=0)  # a common offset would cost the means their digits
    first, second = first - origin, second - origin
    means = first.mean(axis=0), second.mean(axis=0)
    residuals = np.concatenate([first - means[0], second - means[1]])
    axis = means[1] - means[0]
    distance = float(np.linalg.norm(axis))
    if distance <= RESOLUTION * np.sqrt((residuals**2).sum(axis=1).mean() + distance**2):
        return np.full((len(first), 2), np.nan), np.full((len(second), 2), np.nan)
    u = axis / distance
    plane = np.stack([u, _widest(residuals - np.outer(residuals @ u, u))], axis=1)
    middle = (means[0] + means[1]) / 2
    return (first - middle) @ plane / (distance / 2), (second - middle) @ plane / (distance / 2)


def representative_pairs(directional_cdnv: Float[np.ndarray, "k k"]) -> dict[str, tuple[int, int]]:
    """The `hardest`, `median` and `easiest` of the unordered pairs, by the mean of the two orders; no pair twice.

    Pairs without a finite value are left out; of an even number the harder of the two in the middle is the median.
    """
    first, second = np.triu_indices(len(directional_cdnv), 1)
    mean = (directional_cdnv[first, second] + directional_cdnv[second, first]) / 2
    order = np.argsort(-mean, kind="stable")
    order = order[np.isfinite(mean[order])]
    last = len(order) - 1
    chosen = {"hardest": order[:1], "median": order[last // 2 :][: last > 1], "easiest": order[1:][-1:]}
    return {name: (int(first[pair]), int(second[pair])) for name, found in chosen.items() for pair in found}


def _widest(residuals: Float[np.ndarray, "s d"]) -> Float[np.ndarray, " d"]:
    """The top principal direction, from the smaller of the two matrices of products."""
    s, d = residuals.shape
    gram = residuals @ residuals.T if s < d else residuals.T @ residuals
    (top,) = scipy.linalg.eigh(gram, subset_by_index=[len(gram) - 1] * 2)[1].T
    w = residuals.T @ top if s < d else top
    size = np.linalg.norm(w)
    return w * np.sign(w[np.abs(w).argmax()]) / size if gram.trace() > 0 and size > 0 else np.zeros(d)
