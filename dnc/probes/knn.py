"""k-nearest-neighbor probes: votes of the training samples that lie nearest to a test sample."""

import dataclasses
import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnc import errors
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.probes.splits import Split, accuracy_by_class, check_split, check_splits
from dnc.types import Array, ArrayLike, Float, Int

NEIGHBORS = (20, 200)
TEMPERATURE = 0.07
METRICS = ("cosine", "euclidean")
_BANK_ROWS = 4096  # training samples that a block of test samples is compared with at once
_QUERY_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class NeighborAccuracy:
    """Accuracy of k-nearest-neighbor votes, for every number of neighbors.

    Attributes:
      neighbors: how many vote.
      accuracy: share of all samples whose class wins the vote (all samples weigh the same).
      per_class: share of each class's samples; nan for a class without any.
    """

    neighbors: tuple[int, ...]
    accuracy: Float[Array, " j"]
    per_class: Float[Array, "j k"]


@converted(train_features=as_numbers, train_labels=as_codes, test_features=as_numbers, test_labels=as_codes)
def knn_accuracy(
    train_features: Float[ArrayLike, "n d"],
    train_labels: Int[ArrayLike, " n"],
    test_features: Float[ArrayLike, "q d"],
    test_labels: Int[ArrayLike, " q"],
    num_classes: int,
    neighbors: Sequence[int] = NEIGHBORS,
    *,
    metric: str = "cosine",
    temperature: float | None = TEMPERATURE,
) -> NeighborAccuracy:
    """Test accuracy of votes among the nearest training samples.

    metric="cosine": the most similar, s = <x, z> / (||x|| ||z||); the vote of each weighs exp(s / temperature), or 1
    where temperature is None (Wu et al. 2018, sec. 3.4; with k = 20 and T = 0.07 as in DINO, Caron et al. 2021).
    metric="euclidean": the nearest, one vote each; temperature must be None. For raw pixels.

    The class with the most votes wins; ties go to the smaller class number. Of equally near samples (in float32), those
    earlier in the training split vote. One search for the largest k serves all of `neighbors`. Test and training
    samples are compared block by block: memory does not grow with their product. With rows split over the devices of a
    mesh, test samples stay where they are and blocks of training samples go round.

    Raises:
      ValueError: more neighbors than training samples, an unknown metric, a temperature that is not positive
        or goes with the euclidean metric, a row of zeros (it has no direction), a class without training samples,
        features that are not finite or differ in dimension, labels outside 0..num_classes-1.
      TypeError: labels that are not integers.
    """
    train, test = check_splits(train_features, train_labels, test_features, test_labels, num_classes)
    sizes = _check(neighbors, len(train.labels), metric, temperature, {"train": train, "test": test})
    correct = _votes_are_correct(train, test, num_classes, sizes, metric, temperature, leave_one_out=False)
    return _accuracy(correct, test.labels, sizes, num_classes)


@converted(features=as_numbers, labels=as_codes)
def knn_leave_one_out(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    neighbors: Sequence[int] = NEIGHBORS,
    *,
    metric: str = "cosine",
    temperature: float | None = TEMPERATURE,
) -> NeighborAccuracy:
    """`knn_accuracy` of the training samples themselves: each is voted on by all others, never by itself.

    Raises what `knn_accuracy` does; at most n - 1 neighbors.
    """
    split = check_split(features, labels, num_classes, "train", samples_per_class=1)
    sizes = _check(neighbors, len(split.labels) - 1, metric, temperature, {"train": split})
    correct = _votes_are_correct(split, split, num_classes, sizes, metric, temperature, leave_one_out=True)
    return _accuracy(correct, split.labels, sizes, num_classes)


def _check(
    neighbors: Sequence[int], available: int, metric: str, temperature: float | None, splits: dict[str, Split]
) -> tuple[int, ...]:
    sizes = tuple(operator.index(size) for size in neighbors)
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= available:
        raise ValueError(f"neighbors={list(neighbors)} must lie between 1 and the {available} samples that can vote")
    if metric not in METRICS:
        raise errors.unknown("metric", metric, METRICS)
    if temperature is not None and metric == "euclidean":
        raise ValueError(f"temperature={temperature} weighs cosine similarities: set temperature=None, one vote each")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive, or None for one vote each")
    for name, split in splits.items():
        if metric == "cosine" and not (peak := jnp.max(jnp.abs(split.features), axis=1)).all():
            raise ValueError(f"{name}_features row {int(jnp.argmin(peak))} is all zeros and has no direction: drop it")
    return sizes


def _accuracy(
    correct: Float[Array, "j q"], labels: Int[Array, " q"], sizes: tuple[int, ...], num_classes: int
) -> NeighborAccuracy:
    per_class = jnp.stack([accuracy_by_class(votes, labels, num_classes) for votes in correct])
    return NeighborAccuracy(sizes, jnp.mean(correct, axis=1), per_class)


@functools.partial(jax.jit, static_argnames=("num_classes", "neighbors", "metric", "temperature", "leave_one_out"))
def _votes_are_correct(
    train: Split,
    test: Split,
    num_classes: int,
    neighbors: tuple[int, ...],
    metric: str,
    temperature: float | None,
    leave_one_out: bool,
) -> Float[Array, "j q"]:
    bank, queries, offset = _comparable(train.features, test.features, metric)
    nearness, rows = _nearest(bank, offset, queries, max(neighbors), leave_one_out)
    n, labels = len(test.labels), train.labels[rows]  # [q, largest]
    weights = jnp.ones_like(nearness)
    if temperature is not None:
        weights = jnp.exp((nearness - nearness[:, :1]) / temperature)  # less the largest: a common factor, no overflow
    sample = jnp.arange(n, dtype=jnp.int32)[:, None]

    def winner(k: int) -> Int[Array, " q"]:
        votes = jnp.zeros((n, num_classes)).at[sample, labels[:, :k]].add(weights[:, :k])
        return jnp.argmax(votes, axis=1).astype(jnp.int32)

    return jnp.stack([winner(k) == test.labels for k in neighbors]).astype(jnp.float32)


def _comparable(
    bank: Float[Array, "n d"], queries: Float[Array, "q d"], metric: str
) -> tuple[Float[Array, "n d"], Float[Array, "q d"], Float[Array, " n"]]:
    """Bank z, queries x and offset c such that x.z - c grows with nearness: the cosine, or -||x - z||^2 / 2 + const."""
    if metric == "cosine":
        bank, queries = (x / jnp.max(jnp.abs(x), axis=1, keepdims=True) for x in (bank, queries))
        bank, queries = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries))
        return bank, queries, jnp.zeros(len(bank))
    mean = jnp.mean(bank, axis=0, keepdims=True)  # products of uncentered features cancel in float32
    peak = jnp.maximum(jnp.max(jnp.abs(bank - mean)), jnp.finfo(bank.dtype).tiny)
    bank, queries = (bank - mean) / peak, (queries - mean) / peak
    return bank, queries, jnp.sum(bank**2, axis=1) / 2


def _nearest(
    bank: Float[Array, "n d"],
    offset: Float[Array, " n"],
    queries: Float[Array, "q d"],
    largest: int,
    leave_one_out: bool,
) -> tuple[Float[Array, "q j"], Int[Array, "q j"]]:
    """Nearness and bank rows of each query's `largest` nearest, in order; of equals, the earlier rows first."""
    n, q = len(bank), len(queries)
    bank_rows, query_rows = (jnp.arange(size, dtype=jnp.int32) for size in (n, q))
    bank_blocks = [_in_blocks(x, _BANK_ROWS, fill) for x, fill in ((bank, 0), (offset, 0), (bank_rows, n))]
    query_blocks = [_in_blocks(x, _QUERY_ROWS, fill) for x, fill in ((queries, 0), (query_rows, q))]
    shape = (*query_blocks[1].shape, largest)
    nothing = jnp.full(shape, -jnp.inf), jnp.full(shape, n, jnp.int32)

    def compare(best: tuple[Array, Array], block: list[Array]) -> tuple[tuple[Array, Array], None]:
        z, c, rows = block

        def with_queries(arguments: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
            x, own_row, nearness, nearest = arguments
            values = jnp.dot(x, z.T, precision="highest") - c[None, :]
            absent = (rows == n)[None, :]  # padding
            if leave_one_out:
                absent |= rows[None, :] == own_row[:, None]
            values, at = jax.lax.top_k(jnp.where(absent, -jnp.inf, values), min(largest, len(c)))
            nearness, nearest = jnp.concatenate([nearness, values], 1), jnp.concatenate([nearest, rows[at]], 1)
            negative, nearest = jax.lax.sort((-nearness, nearest), dimension=1, num_keys=2)
            return -negative[:, :largest], nearest[:, :largest]

        return jax.lax.map(with_queries, (*query_blocks, *best)), None

    best, _ = jax.lax.scan(compare, nothing, bank_blocks)
    nearness, nearest = (blocks.swapaxes(0, 1).reshape(-1, largest)[:q] for blocks in best)
    return nearness, nearest


def _in_blocks(x: Array, size: int, fill: int) -> Array:
    """Padded and cut into blocks of about `size` rows. A block takes every b-th row, so that rows split over devices
    stay where they are."""
    blocks = -(-len(x) // size)
    x = jnp.pad(x, [(0, -len(x) % blocks)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return x.reshape(-1, blocks, *x.shape[1:]).swapaxes(0, 1)
