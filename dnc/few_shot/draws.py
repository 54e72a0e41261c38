"""Which samples of each class are drawn: the supports of few-shot probes and the held-back part of a training split."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.validation import as_features, check_finite, check_same_length, standardize
from dnc.types import Array, ArrayLike, Float, Int, Key


def shuffled_classes(
    key: Key[Array, ""], labels: Int[Array, " n"], counts: Int[Array, " k"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Each class's samples in random order, drawn independently of the other classes.

    Returns the rows of class 0, then those of class 1, ...; and each sample's rank, 0, 1, ..., inside its class.
    """
    starts = jnp.cumsum(counts) - counts
    order = jnp.lexsort((jax.random.uniform(key, labels.shape), labels))  # by class, shuffled within
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size) - starts[labels[order]])
    return order, rank


def draw_support(
    key: Key[Array, ""], labels: Int[Array, " n"], counts: Int[Array, " k"], largest: int
) -> tuple[Int[Array, "k m"], Int[Array, " n"]]:
    """Rows of `largest` samples of each class, and every sample's rank: those of rank m and above are the queries of m
    shots, and the first m columns their support. Supports are nested in m."""
    order, rank = shuffled_classes(key, labels, counts)
    starts = jnp.cumsum(counts) - counts
    return order[starts[:, None] + jnp.arange(largest)[None, :]], rank


def few_shot_samples(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    shots: Sequence[int],
    repeats: int,
    num_classes: int,
) -> tuple[Float[Array, "n d"], tuple[int, ...]]:
    """Features translated and scaled for float32, and the shots, once every argument of a few-shot probe is checked.

    Raises what `dnc.few_shot.measured.few_shot_error` says it raises.
    """
    sizes = tuple(operator.index(size) for size in shots)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"shots={list(shots)} must hold at least one number, each at least 1")
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    array = as_features(features)
    check_same_length(len(array), len(labels), "labels")
    check_finite(array)
    largest = max(sizes)
    counts = class_counts(np.asarray(labels), num_classes)
    if counts.min() < largest + 1:
        c = int(counts.argmin())
        raise ValueError(
            f"class {c} has {counts[c]} samples, but {largest} shots need at least {largest + 1} (one is left as a "
            f"query); use shots of at most {max(int(counts[c]) - 1, 0)} or leave the class out"
        )
    array, _ = standardize(array)  # translation and scale change no distance comparison, only its rounding
    return jnp.asarray(array), sizes


def class_counts(labels: ArrayLike, num_classes: int, name: str = "labels") -> Int[np.ndarray, " k"]:
    """Samples of each class; raises unless labels are integers in 0..num_classes-1 and there are two classes."""
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes} must be at least 2")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be one-dimensional integers, got {labels.dtype} of shape {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{name} range over {labels.min()}..{labels.max()}; they must lie in 0..{num_classes - 1} "
            f"(num_classes={num_classes})"
        )
    return np.asarray(jnp.bincount(labels, length=num_classes))
