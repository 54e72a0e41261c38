"""Confidence intervals, for the population, of anything computed from class geometry."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from scipy.special import stdtrit

from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int, Key


@array_dataclass
class Interval:
    """An estimate of a statistic of the population, and its confidence interval."""

    estimate: Any  # the sample's value, less the jackknife's estimate of its bias
    low: Any
    high: Any
    deviation: Any  # standard error


@converted(features=as_numbers, labels=as_codes)
@functools.partial(jax.jit, static_argnames=("statistic", "num_classes", "groups", "level", "overlap", "queries"))
def jackknife(
    key: Key[Array, ""],
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    statistic: Callable[[PairGeometry], Any],
    *,
    groups: int = 20,
    level: float = 0.95,
    overlap: str = "auto",
    queries: bool = False,
) -> Interval:
    """Delete-a-group jackknife intervals of `statistic(geometry)`, a pytree of arrays (Quenouille 1956; Tukey 1958).

    The samples of each class are dealt into G groups at random, and the statistic is measured without each group in
    turn. With t the sample's value, t_g those values and t_ their mean,

        estimate = G t - (G - 1) t_,     deviation^2 = (G - 1)/G sum_g (t_g - t_)^2,

    and the interval is estimate -+ the quantile of Student's t with G - 1 degrees of freedom times the deviation. The
    estimate lacks the sample's bias of order 1/n: unlike a bootstrap's, its interval covers the population's value
    where moments are measured from few samples. Where plug-in moments are far off (n small against d), let the
    statistic take `geometry.with_corrected_distances()`; and let it return the logarithm of what is positive.

    Pure and jitted; all but `key`, `features` and `labels` are static (a new lambda compiles again). Groups enter as
    weights, so that one program measures them all, one after the other. Give at least 2 groups, and at most as many as
    the smallest class has samples. `overlap` and `queries` are those of `pair_geometry`.
    """
    measure = functools.partial(
        pair_geometry, features, labels, num_classes=num_classes, overlap=overlap, queries=queries
    )
    group = dealt(key, labels, num_classes, groups)
    whole = statistic(measure())
    without = jax.lax.map(lambda g: statistic(measure(weights=(group != g).astype(jnp.float32))), jnp.arange(groups))
    mean = jax.tree.map(lambda values: jnp.mean(values, axis=0), without)
    estimate = jax.tree.map(lambda t, center: groups * t - (groups - 1) * center, whole, mean)
    deviation = jax.tree.map(
        lambda values, center: jnp.sqrt((groups - 1) / groups * jnp.sum((values - center[None]) ** 2, axis=0)),
        without,
        mean,
    )
    quantile = float(stdtrit(groups - 1, (1 + level) / 2))  # of Student's t
    low = jax.tree.map(lambda t, s: t - quantile * s, estimate, deviation)
    high = jax.tree.map(lambda t, s: t + quantile * s, estimate, deviation)
    return Interval(estimate, low, high, deviation)


def dealt(key: Key[Array, ""], labels: Int[ArrayLike, " n"], num_classes: int, groups: int) -> Int[Array, " n"]:
    """A group 0..groups-1 for each sample: every class is shuffled, then dealt out evenly."""
    labels = jnp.asarray(labels)
    _, rank = shuffled_classes(key, labels, jnp.bincount(labels, length=num_classes))
    return rank % groups
