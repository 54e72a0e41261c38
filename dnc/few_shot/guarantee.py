"""A guarantee for new data: bounds of the few-shot error that hold with a chosen probability over the labeled samples.

The certificates bound the error of the sample's own distribution; here nothing is assumed but that the samples of each
class were drawn independently from the class. The error is that of a rule taught by m shots per class, on average over
supports and queries drawn anew, classes weighing the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dnc.few_shot import betting
from dnc.few_shot.block_errors import Rule, block_errors, nearest_center
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.shots import check_allocations, shots_by_class
from dnc.geometry.validation import as_features, check_finite, check_same_length, class_counts, standardize
from dnc.types import Array, ArrayLike, Float, Int, Key

Shots: TypeAlias = Sequence[int | Sequence[int]]

MIN_BLOCKS = 3
_SHUFFLES_AT_ONCE = 8  # of up to 128 classes; of more, whose blocks have more queries, fewer
_MANY_QUERIES = 2**13  # of a shuffle; of so many, few shuffles are needed
_MAX_SHUFFLES = 256
# Standard error of a bound, over shuffles, at which no more are drawn. On EfficientNet features of CIFAR-10 (ten
# classes of 200 or 500 samples, m = 1 to 20), neither bound moved by more than .0045 between two or three seeds.
_DEVIATION = 0.0015


@dataclasses.dataclass(frozen=True)
class Guarantee:
    """Bounds of the few-shot error on new data.

    Attributes:
      shots: shots per class, or the shots of each class.
      confidence: the probability, over the labeled samples, with which a bound holds.
      upper: at most this is the error on new data, mean over classes, with probability `confidence`.
      lower: at least this, likewise on its own; with `two_sided`, both hold together with probability `confidence`.
      blocks: number of disjoint blocks, of a support and a query per class, that the sample makes.
      error: mean error over the blocks of all shuffles, an unbiased estimate.
      per_class_upper: at most this is the error on new samples of the class, where it was asked for. Each entry holds
        on its own with probability `confidence` (with `two_sided`, together with its lower bound), not all classes at
        once.
      per_class_lower: at least this, likewise.
    """

    shots: tuple[int | tuple[int, ...], ...]
    confidence: float
    upper: Float[np.ndarray, " m"]
    lower: Float[np.ndarray, " m"]
    blocks: Int[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]
    per_class_upper: Float[np.ndarray, "m k"] | None = None
    per_class_lower: Float[np.ndarray, "m k"] | None = None


@dataclasses.dataclass(frozen=True)
class GuaranteedDifference:
    """Bounds of the difference of two encoders' few-shot errors on new data, a less b.

    Attributes:
      shots: shots per class, or the shots of each class.
      confidence: the probability, over the labeled samples, with which both bounds of a number of shots hold.
      upper: at most this is the difference.
      lower: at least this.
      blocks: number of disjoint blocks, of a support and a query per class, that the sample makes.
      difference: its mean over the blocks of all shuffles, an unbiased estimate.
    """

    shots: tuple[int | tuple[int, ...], ...]
    confidence: float
    upper: Float[np.ndarray, " m"]
    lower: Float[np.ndarray, " m"]
    blocks: Int[np.ndarray, " m"]
    difference: Float[np.ndarray, " m"]


@converted(features=as_numbers, labels=as_codes)
def guarantee(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    shots: Shots,
    *,
    confidence: float = 0.95,
    two_sided: bool = False,
    per_class: bool = False,
    seed: int = 0,
    rule: Rule = nearest_center,
    classes: Sequence[str] | None = None,
) -> Guarantee:
    """Bounds, at a confidence, of the error on new data with m shots per class, for every m in `shots`.

    An entry of `shots` is a number of shots per class, or a sequence of the shots m_c of each class. A shuffle of each
    class is cut into B = min_c floor(n_c / (m_c + 1)) disjoint blocks of a support and one query per class. The errors
    h_b of blocks, means over classes, are independent, lie in [0, 1] and have the error on new data as their mean;
    `dnc.few_shot.betting` turns them into bounds. Its wealth is averaged over shuffles, and in each over 16 ways to
    pair supports and queries (fewer of more than 64 classes): the mean of e-values is an e-value, so the bounds do not
    hang on a lucky split.

    Valid for every sample size, number of shots, distribution and number of shuffles, if samples of each class are
    independent and the classes' numbers of samples do not depend on them. The bound exceeds the error by at least
    (1 - error)(1 - (1 - confidence)^(1/B)), since a disaster that strikes a block so rarely leaves no trace in the
    sample: large m wants many samples.

    More shuffles are drawn, up to 256, until the standard error of `upper` and `lower` over shuffles is .0015 (valid
    by the exchangeable Markov inequality, Ramdas and Manole 2023). Bounds per class may move more between seeds.

    `rule(support, taken, queries)` gives the error, in [0, 1], of each query: support [k, m, d] of which taken [k, m]
    marks the shots (fewer than m where classes have unequal shots), queries [k, q, d] of classes 0..k-1, result
    [k, q]. It is compiled; it must judge each query by itself. One of your own gets the features as they are, in
    float32; the nearest center, which translation and scale do not change, gets them standardized. The few-shot linear
    probe, for instance:

        def linear(support, taken, queries):
            k, m, d = support.shape
            chosen = taken.reshape(-1).astype(support.dtype)
            share = chosen / jnp.sum(chosen)
            x = support.reshape(-1, d)
            mean = share @ x
            scale = jnp.sqrt(share @ jnp.sum((x - mean) ** 2, axis=1))
            start = LinearClassifier.zeros(d, k)
            y = jnp.repeat(jnp.arange(k), m)
            z = (x - mean) / scale
            fit = fit_logistic(z, y, chosen, 1e-3, start, tolerance=1e-4, max_iterations=500)
            scores = fit.classifier.scores((queries.reshape(-1, d) - mean) / scale)
            y = jnp.repeat(jnp.arange(k), queries.shape[1])
            return 1 - is_correct(scores, y).reshape(k, -1)

    `per_class` bounds the error of each class too, k times the bounds to find. `classes` are the names that an error
    calls them by.

    Raises:
      ValueError: fewer than 3 blocks, shots below 1 or not one for each class, a confidence outside (0, 1), features
        not finite, labels outside 0..num_classes-1, or a rule's errors outside [0, 1].
      TypeError: labels that are not integers.
    """
    given, allocations, blocks = _check((features,), labels, num_classes, shots, confidence, classes)
    delta = (1 - confidence) / (2 if two_sided else 1)
    array = _prepared(features, rule)
    rows = []
    for m, size in zip(allocations, blocks.tolist(), strict=True):
        draw = functools.partial(block_errors, array, jnp.asarray(labels), m, size, rule)
        errors = _drawn(draw, delta, seed, num_classes, size * num_classes, spread=1 / num_classes)
        total = errors.mean(axis=2, dtype=np.float64)
        bounds = [betting.bounds(total, delta, spread=1 / num_classes)]
        if per_class:
            bounds += [betting.bounds(errors[:, :, c].astype(np.float64), delta) for c in range(num_classes)]
        rows.append((total.mean(), *np.transpose(bounds)))
    error, lower, upper = (np.stack(column) for column in zip(*rows, strict=True))
    return Guarantee(
        shots=given,
        confidence=confidence,
        upper=upper[:, 0],
        lower=lower[:, 0],
        blocks=blocks,
        error=error,
        per_class_upper=upper[:, 1:] if per_class else None,
        per_class_lower=lower[:, 1:] if per_class else None,
    )


@converted(features_a=as_numbers, features_b=as_numbers, labels=as_codes)
def guaranteed_difference(
    features_a: Float[ArrayLike, "n d"],
    features_b: Float[ArrayLike, "n e"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    shots: Shots,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    rule: Rule = nearest_center,
) -> GuaranteedDifference:
    """Bounds, at a confidence, of the error of encoder a less that of encoder b on new data.

    Both features are of the same samples, in the same order. The method is that of `guarantee`, with the differences of
    the two errors on the same blocks, which lie in [-1, 1]: what both encoders find hard cancels.

    Raises what `guarantee` does.
    """
    given, allocations, blocks = _check((features_a, features_b), labels, num_classes, shots, confidence)
    delta = (1 - confidence) / 2
    arrays = [_prepared(features, rule) for features in (features_a, features_b)]
    rows = []
    for m, size in zip(allocations, blocks.tolist(), strict=True):

        def draw(keys: Key[Array, " r"], m: np.ndarray = m, size: int = size) -> np.ndarray:
            a, b = (block_errors(array, jnp.asarray(labels), m, size, rule, keys) for array in arrays)
            return (1 + a - b) / 2

        spread = 1 / (2 * num_classes)
        halves = _drawn(draw, delta, seed, num_classes, size * num_classes, spread).mean(axis=2, dtype=np.float64)
        rows.append(2 * np.array([halves.mean(), *betting.bounds(halves, delta, spread)]) - 1)
    difference, lower, upper = np.transpose(rows)
    return GuaranteedDifference(given, confidence, upper, lower, blocks, difference)


def _check(
    encoders: Sequence[ArrayLike],
    labels: ArrayLike,
    num_classes: int,
    shots: Shots,
    confidence: float,
    classes: Sequence[str] | None = None,
) -> tuple[tuple[int | tuple[int, ...], ...], Int[np.ndarray, "m k"], Int[np.ndarray, " m"]]:
    """Shots as they were given and of each class, and numbers of blocks; raises what `guarantee` does."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1, such as 0.95")
    for features in encoders:
        array = as_features(features)
        check_same_length(len(array), len(labels), "labels")
        check_finite(array)
    counts = class_counts(np.asarray(labels), num_classes)
    given = check_allocations(shots, num_classes)
    allocations = shots_by_class(given, num_classes)
    each = counts[None, :] // (allocations + 1)
    for m, blocks in zip(allocations, each, strict=True):
        c = int(blocks.argmin())
        if blocks[c] < MIN_BLOCKS:
            need = MIN_BLOCKS * (int(m[c]) + 1)
            most = int(counts[c]) // MIN_BLOCKS - 1
            remedy = f"use at most {most} shots or label more samples" if most > 0 else "label more samples"
            raise ValueError(
                f"class {classes[c] if classes else c} has {counts[c]} samples, but a guarantee for {m[c]} shots "
                f"needs at least {need} ({MIN_BLOCKS} blocks of {m[c]} shots and a query): {remedy}"
            )
    return given, allocations, each.min(axis=1)


def _prepared(features: ArrayLike, rule: Rule) -> Float[Array, "n d"]:
    array = as_features(features)
    if rule is nearest_center:
        return jnp.asarray(standardize(array)[0])
    return jnp.asarray(array, jnp.float32)  # statistics of all samples would make the blocks of other rules dependent


def _drawn(
    draw: Callable[[Key[Array, " r"]], Float[np.ndarray, "e b k"]],
    delta: float,
    seed: int,
    num_classes: int,
    queries: int,
    spread: float,
) -> Float[np.ndarray, "s b k"]:
    """Values of blocks, from as many shuffles, of so many queries, as the bounds of their means over classes need."""
    key, values, drawn = jax.random.key(seed), [], 0
    at_once = 1 if queries > _MANY_QUERIES else max(1, min(_SHUFFLES_AT_ONCE, 1024 // num_classes))
    while True:
        for _ in range(max(drawn, 4 * at_once) // at_once):  # doubles their number
            values.append(draw(_shuffle_keys(key, drawn, at_once)))
            drawn += at_once
        quarters = np.split(np.concatenate(values).mean(axis=2, dtype=np.float64), 4)
        deviation = np.std([betting.bounds(quarter, delta, spread) for quarter in quarters], axis=0, ddof=1) / 2
        if drawn >= _MAX_SHUFFLES or deviation.max() <= _DEVIATION:
            return np.concatenate(values)


@functools.partial(jax.jit, static_argnames="count")
def _shuffle_keys(key: Key[Array, ""], first: Int[ArrayLike, ""] | int, count: int) -> Key[Array, " r"]:
    return jax.vmap(functools.partial(jax.random.fold_in, key))(first + jnp.arange(count))
