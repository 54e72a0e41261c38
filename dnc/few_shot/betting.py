"""Bounds of a mean by betting against it (Waudby-Smith and Ramdas 2024), over dependent looks at one sample."""

import numpy as np

from dnc.types import Float

_RESERVE = 0.1  # share of the wealth that is never at stake, times the spread: a value of 0 does not ruin
_TOLERANCE = 2.0**-22  # by which bounds err, on the safe side
_ROUNDING = 1e-9  # more than the sum of the logarithms of a wealth can err by


def bounds(values: Float[np.ndarray, "s b"], delta: float, spread: float = 1.0) -> tuple[float, float]:
    """A lower and an upper bound of the mean mu of independent values in [0, 1], each with probability 1 - delta.

    A row of `values` holds b independent values, one look at the sample; other rows are further looks at the same
    sample, which may depend on each other in any way. `spread` is a guess at the variance in units of 1/4, its largest
    possible value: the bounds hold whatever it is.

    The wealth of one who bets the share alpha_t on "mu > a" is, for a row x,

        W(a) = prod_t (1 - alpha_t + alpha_t x_t / a),

    whose mean is at most 1 if mu <= a, for alpha_t in [0, 1] that depends on x_1, ..., x_{t-1} alone. So is that of the
    mean of W over rows, and by Markov's inequality it reaches 1/delta with probability at most delta. The lower bound
    is the largest a at which it does: alpha does not depend on a, so W falls in a. The upper bound is that of 1 - x.

    Written with the error theta = 1 - a, h = 1 - x, the factors are 1 + lambda_t (theta - h_t) with
    lambda_t = alpha_t / (1 - theta), and alpha_t aims at

        lambda_t = sqrt(2 log(1/delta) / (b var_{t-1})),

    at most (1 - spread/10)/(1 - theta). In var_{t-1} the guess counts as one value beside x_1, ..., x_{t-1}.
    """
    return _lower(values, delta, spread), 1 - _lower(1 - values, delta, spread)


def _lower(x: Float[np.ndarray, "s b"], delta: float, spread: float) -> float:
    """The largest a whose wealth reaches 1/delta, or about 2^-22 less.

    log W is convex and falls in log a, so that Newton's steps from the left come ever closer to it and never pass it.
    """
    stake, wanted = _stakes(x, delta, spread), _ROUNDING - np.log(delta)
    bound, a = 0.0, _TOLERANCE
    while True:
        log_wealth, slope = _log_mean_wealth(x, stake, a)
        if log_wealth < wanted:
            return bound
        bound, a = a, min(a * np.exp((wanted - log_wealth) / slope), 1.0)
        if a - bound <= _TOLERANCE:
            return bound


def _log_mean_wealth(x: Float[np.ndarray, "s b"], stake: Float[np.ndarray, "s b"], a: float) -> tuple[float, float]:
    """log W(a), and its derivative by log a."""
    won = stake * x / a
    factor = 1 - stake + won
    log_wealth = np.sum(np.log(factor), axis=1)
    largest = log_wealth.max()
    share = np.exp(log_wealth - largest)
    slope = -np.sum(share * np.sum(won / factor, axis=1)) / np.sum(share)
    return float(largest + np.log(np.mean(share))), float(slope)


def _stakes(x: Float[np.ndarray, "s b"], delta: float, spread: float) -> Float[np.ndarray, "s b"]:
    """alpha_t = lambda_t a for a guess at the bound a, from values before t."""
    b = x.shape[1]
    seen = np.arange(b) + 1.0  # values before t, and a guess of mean 1/2 and variance spread/4
    sums = np.cumsum(x, axis=1)
    mean = (0.5 + sums) / (seen + 1)  # with the value itself
    squares = np.cumsum((x - mean) ** 2, axis=1)
    variance = (spread / 4 + _shifted(squares)) / seen
    width = np.sqrt(2 * np.log(1 / delta) * variance / b)
    mean_before = (0.5 + _shifted(sums)) / seen
    bound = np.maximum(mean_before - width, mean_before * delta ** (1 / b))
    return np.minimum(2 * np.log(1 / delta) / b * bound / width, 1 - _RESERVE * spread)


def _shifted(sums: Float[np.ndarray, "s b"]) -> Float[np.ndarray, "s b"]:
    """Sums over the values before each."""
    return np.pad(sums[:, :-1], ((0, 0), (1, 0)))
