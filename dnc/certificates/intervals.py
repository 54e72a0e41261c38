"""Bootstrap confidence intervals for anything computed from class geometry."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int, Key


@array_dataclass
class Interval:
    """A statistic of the sample, and its basic bootstrap interval."""

    estimate: Any  # of the sample
    low: Any
    high: Any
    deviation: Any  # standard deviation over replicates


@converted(features=as_numbers, labels=as_codes)
@functools.partial(jax.jit, static_argnames=("statistic", "num_classes", "replicates", "level", "overlap", "queries"))
def bootstrap(
    key: Key[Array, ""],
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    statistic: Callable[[PairGeometry], Any],
    *,
    replicates: int = 200,
    level: float = 0.95,
    overlap: str = "auto",
    queries: bool = False,
) -> Interval:
    """Basic bootstrap intervals of `statistic(geometry)`, a pytree of arrays (Efron and Tibshirani 1993, chapter 13).

    A replicate draws, within each class, as many samples as it has, with replacement; they enter as weights, so that
    one compiled program measures them all, one after the other. With t the sample's value and q the quantiles of the
    replicates, the interval is [2 t - q_high, 2 t - q_low]: unlike the quantiles themselves it is not thrown off by
    the bias of plug-in moments, which resampling doubles. Clip it where the statistic has bounds.

    Pure and jitted; all but `key`, `features` and `labels` are static (a new lambda compiles again).
    `overlap` and `queries` are those of `pair_geometry`. Every class must have samples.
    """
    measure = functools.partial(
        pair_geometry, features, labels, num_classes=num_classes, overlap=overlap, queries=queries
    )
    estimate = statistic(measure())

    def replicate(draw: Key[Array, ""]) -> Any:
        return statistic(measure(weights=resampled(draw, labels, num_classes)))

    values = jax.lax.map(replicate, jax.random.split(key, replicates))
    tail = (1 - level) / 2

    def reflected(quantile: float) -> Any:
        return jax.tree.map(lambda t, draws: 2 * t - jnp.quantile(draws, quantile, axis=0), estimate, values)

    deviation = jax.tree.map(lambda draws: jnp.std(draws, axis=0), values)
    return Interval(estimate, reflected(1 - tail), reflected(tail), deviation)


def resampled(key: Key[Array, ""], labels: Int[ArrayLike, " n"], num_classes: int) -> Float[Array, " n"]:
    """How often each sample is drawn when every class draws as many as it has, with replacement."""
    labels = jnp.asarray(labels)
    order = jnp.argsort(labels)
    counts = jnp.bincount(labels, length=num_classes)
    starts = jnp.cumsum(counts) - counts
    size = counts[labels]
    place = jnp.floor(jax.random.uniform(key, labels.shape) * size.astype(jnp.float32)).astype(counts.dtype)
    drawn = starts[labels] + jnp.minimum(place, size - 1)
    return jnp.zeros(labels.shape, jnp.float32).at[order[drawn]].add(1)
