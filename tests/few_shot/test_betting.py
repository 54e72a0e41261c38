import math

import numpy as np
import pytest

from dnc.few_shot import betting


def oracle_lower(x: np.ndarray, delta: float, spread: float) -> float:
    """One factor at a time; the crossing by a fine grid, then the grid point below it."""

    def mean_wealth(a: float) -> float:
        total = 0.0
        for row in x:
            b, wealth = len(row), 1.0
            total_before, squares, seen = 0.5, spread / 4, 1
            for value in row:
                mean, variance = total_before / seen, squares / seen
                width = math.sqrt(2 * math.log(1 / delta) * variance / b)
                bound = max(mean - width, mean * delta ** (1 / b))
                lam = math.sqrt(2 * math.log(1 / delta) / (b * variance))
                wealth *= 1 + min(lam * bound, 1 - spread / 10) * (value / a - 1)
                total_before, seen = total_before + value, seen + 1
                squares += (value - total_before / seen) ** 2
            total += wealth
        return total / len(x)

    grid = np.arange(1, 2001) / 2000
    reached = [a for a in grid if mean_wealth(a) >= 1 / delta]
    return max(reached, default=0.0)


@pytest.mark.parametrize("levels", [1, 10])
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_matches_a_loop_over_a_grid(levels, delta):
    x = np.random.default_rng(levels).binomial(levels, 0.3, size=(5, 12)) / levels
    low, high = betting.bounds(x, delta, spread=1 / levels)
    assert 0 <= low - oracle_lower(x, delta, 1 / levels) <= 1 / 2000
    assert 0 <= (1 - high) - oracle_lower(1 - x, delta, 1 / levels) <= 1 / 2000


def test_three_blocks_by_hand():
    """Nothing wrong in three blocks: all stakes are .99, and (.01 + .99/a)^3 = 1000 at a = .99/9.99."""
    low, high = betting.bounds(np.zeros((1, 3)), 0.001, spread=0.1)
    assert high == pytest.approx(1 - 0.99 / 9.99, abs=1e-6)
    assert low == 0


def test_rows_are_averaged_before_they_are_compared_with_the_threshold():
    x = np.random.default_rng(0).uniform(size=(2, 40))
    x[1] = x[1] / 2
    apart = [betting.bounds(row[None], 0.05)[0] for row in x]
    together = betting.bounds(x, 0.05)[0]
    assert min(apart) < together < max(apart)
    assert together > np.mean(apart)  # the larger wealth dominates


def test_stakes_look_only_back():
    x = np.random.default_rng(0).uniform(size=(3, 20))
    changed = x.copy()
    changed[:, 11:] = 1
    stakes = [betting._stakes(values, 0.05, 1.0) for values in (x, changed)]
    np.testing.assert_array_equal(stakes[0][:, :12], stakes[1][:, :12])
    assert np.any(stakes[0][:, 12:] != stakes[1][:, 12:])
    assert np.all((stakes[0] >= 0) & (stakes[0] <= 0.9))


@pytest.mark.parametrize("x", [np.zeros((2, 2000)), np.ones((2, 2000)), np.tile([0.0, 1.0], (2, 1000))])
def test_extremes_neither_overflow_nor_leave_the_unit_interval(x):
    low, high = betting.bounds(x, 1e-6)
    assert 0 <= low <= x.mean() <= high <= 1
    assert high - low < 0.2


@pytest.mark.parametrize("probability", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("b", [3, 30])
def test_bounds_hold_with_their_probability(probability, b):
    """Binary values are the hardest. The bound misses where the wealth reaches 1/delta at the mean itself."""
    rng, delta, samples = np.random.default_rng(0), 0.1, 1000
    missed = 0
    for _ in range(samples):
        sample = (rng.uniform(size=b) < probability).astype(float)
        x = np.stack([rng.permutation(sample) for _ in range(4)])
        stakes = betting._stakes(x, delta, 1.0)
        missed += betting._log_mean_wealth(x, stakes, probability)[0] >= np.log(1 / delta)
    assert missed / samples <= delta + 3 * math.sqrt(delta * (1 - delta) / samples)
