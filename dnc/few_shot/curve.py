"""The few-shot curve over a wide range of shots, and where it reaches a target."""

import math

import numpy as np

from dnc.types import Float

GRID = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10**4, 10**5, 10**6)  # beyond, no number reaches a target
TARGETS = (0.2, 0.1, 0.05, 0.01)


def shots_needed(grid: Float[np.ndarray, " g"], error: Float[np.ndarray, " g"], target: float) -> float:
    """The number of shots from which on the error stays at or below the target; inf where it ends above.

    Between points of the grid the logarithm of the error is taken to be linear in that of the shots.

    >>> shots_needed(np.array([1.0, 10.0, 100.0]), np.array([0.4, 0.2, 0.1]), 0.2)
    10.0
    """
    above = np.flatnonzero(~(error <= target))
    if not above.size:
        return float(grid[0])
    last = int(above[-1])
    if last == len(grid) - 1:
        return math.inf
    left, right = np.log(np.maximum(error[last : last + 2], 1e-12))
    share = (left - math.log(target)) / (left - right)
    return float(math.ceil(float(grid[last] * (grid[last + 1] / grid[last]) ** share) - 1e-6))
