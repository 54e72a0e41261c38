"""A training and a test split: checked before a probe learns from one and is measured on the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.validation import class_counts
from dnc.types import Array, Float, Int


class Split(NamedTuple):
    """Features float32 and labels of the same rows; arrays that were laid out over devices still are."""

    features: Float[Array, "n d"]
    labels: Int[Array, " n"]


def check_splits(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    num_classes: int,
    samples_per_class: int = 1,
) -> tuple[Split, Split]:
    """Both splits, checked: every class needs `samples_per_class` training samples; test samples
    are optional.

    Raises ValueError or TypeError that name the argument: features that are not [n, d] and finite in float32, another
    d or number of rows, labels outside 0..num_classes-1, a class with too few training samples.
    """
    train = check_split(train_features, train_labels, num_classes, "train", samples_per_class)
    test = check_split(test_features, test_labels, num_classes, "test")
    if train.features.shape[1] != test.features.shape[1]:
        raise ValueError(
            f"train_features have dimension {train.features.shape[1]} but test_features {test.features.shape[1]}: "
            "both must come from the same encoder"
        )
    return train, test


def check_split(features: Any, labels: Any, num_classes: int, part: str, samples_per_class: int = 0) -> Split:
    """One split, checked as `check_splits` does; errors call its arguments `part`_features and `part`_labels.

    Looks at arrays through jax, so that those split over devices, of one process or several, need not be gathered.
    """
    name = f"{part}_features"
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf, and is refused
        x = jnp.asarray(features, jnp.float32)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape [n, d], n and d positive, got {x.shape}")
    counts = class_counts(labels, num_classes, f"{part}_labels")
    if len(x) != len(labels):
        raise ValueError(f"{name} have {len(x)} rows but {part}_labels {len(labels)} entries: give one label per row")
    wrong = ~jnp.isfinite(x)
    if count := int(jnp.sum(wrong)):
        row = int(jnp.argmax(jnp.any(wrong, axis=1)))
        raise ValueError(
            f"{name} hold {count} values that are NaN or Inf in float32 (first in row {row}): drop these rows or fix "
            "the encoder"
        )
    if counts.min() < samples_per_class:
        c = int(counts.argmin())
        raise ValueError(
            f"class {c} has {counts[c]} samples in {part}_labels but needs {samples_per_class}: add samples, or leave "
            "the class out of both splits"
        )
    return Split(x, jnp.asarray(labels, jnp.int32))


def accuracy_by_class(correct: Float[Array, " n"], labels: Int[Array, " n"], num_classes: int) -> Float[Array, " k"]:
    """Share of each class's samples that are classified correctly; nan for a class without samples."""
    sums = jax.ops.segment_sum(correct, labels, num_segments=num_classes)
    return sums / jnp.bincount(labels, length=num_classes).astype(sums.dtype)
