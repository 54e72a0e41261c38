"""Which samples of each class are drawn: the supports of few-shot probes and the held-back part of a training split."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.shots import check_allocations, shots_by_class
from dnc.geometry.validation import (
    as_features,
    check_finite,
    check_same_length,
    class_counts,
    standardize,
)
from dnc.types import Array, ArrayLike, Float, Int, Key


def draw_support(
    key: Key[Array, ""], labels: Int[Array, " n"], counts: Int[Array, " k"], largest: int
) -> tuple[Int[Array, "k m"], Int[Array, " n"]]:
    """Rows of `largest` samples of each class, and every sample's rank in its class.

    The first m columns are the support of m shots, and samples of rank m and above its queries: supports are nested.
    """
    order, rank = shuffled_classes(key, labels, counts)
    starts = jnp.cumsum(counts) - counts
    return order[starts[:, None] + jnp.arange(largest)[None, :]], rank


def check_few_shot_inputs(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    shots: Sequence[Any],
    repeats: int,
    num_classes: int,
    classes: Sequence[str] | None = None,
) -> tuple[Float[Array, "n d"], tuple[int | tuple[int, ...], ...]]:
    """Checks every argument of a few-shot probe; returns features translated and scaled for float32, and the shots.

    Raises what `dnc.few_shot.measured.few_shot_error` raises.
    """
    sizes = check_allocations(shots, num_classes)
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    array = as_features(features)
    check_same_length(len(array), len(labels), "labels")
    check_finite(array)
    largest = shots_by_class(sizes, num_classes).max(axis=0)
    counts = class_counts(np.asarray(labels), num_classes)
    if (counts < largest + 1).any():
        c = int((counts - largest).argmin())
        raise ValueError(
            f"class {classes[c] if classes else c} has {counts[c]} samples, but {largest[c]} shots need at least "
            f"{largest[c] + 1} (one is left as a query); use shots of at most {max(int(counts[c]) - 1, 0)} or leave "
            "the class out"
        )
    array, _ = standardize(array)  # translation and scale change no distance comparison, only its rounding
    return jnp.asarray(array), sizes
