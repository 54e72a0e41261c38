"""Measured few-shot error of the nearest-class-center classifier (NCC)."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.compiling import jit_quickly
from dnc.few_shot.draws import check_few_shot_inputs, draw_support
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.shots import shots_by_class
from dnc.geometry.sizes import sizes
from dnc.types import Array, ArrayLike, Bool, Float, Int, Key

_DISTANCES = 4e8  # to centroids, in all repeats and entries of shots, up to which every sample is a query of each
_TIE = 4 * float(
    np.finfo(np.float32).eps
)  # squared distances this close, relative to what they were made of, are equal


@dataclasses.dataclass(frozen=True)
class FewShotError:
    """Few-shot NCC error, averaged over repeats.

    Attributes:
      shots: a number for all classes, or one of each class.
      mean: mean over classes (so classes weigh the same), then over repeats.
      std: standard deviation over repeats (1/r) of the mean over classes.
      per_class: fraction of class i's queries that are at least as near to another centroid as to i's.
      per_pair: fraction of class i's queries at least as near to centroid j as to centroid i, diagonal 0. The error of
        the two-class subtask {i, j} is the mean of [i, j] and [j, i].
      per_repeat: mean over classes, of each repeat: of two encoders with the same draws, differences are paired.
      episodes: the classes of each repeat; all of them unless `ways` drew fewer. With `ways`, means are over the
        classes of the episode, and `per_class` over the episodes that hold the class (nan where none does);
        `per_pair` is that of all pairs in all repeats.
      queries: of each class in each repeat, drawn anew; None for all that are not among the support.
    """

    shots: tuple[Any, ...]
    mean: Float[Array, " m"]
    std: Float[Array, " m"]
    per_class: Float[Array, "m k"]
    per_pair: Float[Array, "m k k"]
    per_repeat: Float[Array, "r m"]
    episodes: Int[Array, "r w"]
    queries: int | None = None


@converted(features=as_numbers, labels=as_codes)
def few_shot_error(
    key: Key[Array, ""],
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    shots: Sequence[Any],
    repeats: int,
    num_classes: int,
    ways: int | None = None,
    classes: Sequence[str] | None = None,
    queries: int | None = None,
) -> FewShotError:
    """Error of NCC with m shots per class, for every m in `shots`, over `repeats` random supports.

    m is one number for all classes or a sequence of one for each (see `dnc.geometry.shots.check_allocations`).
    Among all classes, or, with `ways`, among that many classes drawn anew for each repeat (an *episode*), an error
    that a certificate of `PairGeometry.subset` bounds episode by episode.

    A repeat permutes the samples of each class independently. The first m are the support, all others of the class
    are queries, for each m; supports are nested in m, so differences between shots are not sampling noise. A tie, up
    to float32 rounding of the two distances, is an error. All shots, repeats and classes run in one program, compiled
    once per shape and largest number of shots. The draws go by row numbers: other rows, or the same in another order,
    draw others. `classes` are the names that an error calls them by.

    With `queries`, at most so many of each class, of those after the largest support, are the queries of a repeat, for
    all m alike. Its default takes all, or, where these are more than 4e8 distances to centroids in all repeats (20,000
    samples of 100 classes, 20 repeats and ten entries), as many as that allows, whatever the features; the result says
    how many.

    Raises:
      ValueError: shots, repeats or queries below 1, features not finite, labels outside 0..num_classes-1, or a class
        with too few samples to leave a query beside the largest support.
      TypeError: labels that are not integers.
    """
    array, sizes = check_few_shot_inputs(features, labels, shots, repeats, num_classes, classes)
    ways = num_classes if ways is None else operator.index(ways)
    if not 2 <= ways <= num_classes:
        raise ValueError(f"ways={ways} must lie between 2 and num_classes={num_classes}")
    draws, chosen = jax.random.split(key, repeats), jax.random.split(jax.random.fold_in(key, 1), repeats)
    episodes = jnp.tile(jnp.arange(num_classes, dtype=jnp.int32), (repeats, 1))
    if ways < num_classes:
        episodes = jnp.sort(jax.vmap(jax.random.permutation)(chosen, episodes)[:, :ways], axis=1)
    taken = jnp.any(episodes[:, :, None] == jnp.arange(num_classes, dtype=jnp.int32)[None, None, :], axis=1)
    by_class = shots_by_class(sizes, num_classes)
    queries = _affordable(len(array), by_class.shape, repeats) if queries is None else operator.index(queries)
    if queries is not None and queries < 1:
        raise ValueError(f"queries={queries} must be at least 1")
    wrong, wrong_pair = _measure(
        draws,
        array,
        jnp.asarray(labels),
        taken,
        jnp.asarray(by_class, jnp.int32),
        largest=int(by_class.max()),
        queries=queries,
    )
    error = jnp.mean(wrong, axis=2, where=taken[:, None, :])
    return FewShotError(
        shots=sizes,
        mean=jnp.mean(error, axis=0),
        std=jnp.std(error, axis=0),
        per_class=jnp.mean(wrong, axis=0, where=taken[:, None, :]),
        per_pair=wrong_pair,
        per_repeat=error,
        episodes=episodes,
        queries=queries,
    )


def _affordable(n: int, shots: tuple[int, ...], repeats: int) -> int | None:
    """Queries of each class that `_DISTANCES` allow; None where they allow all samples."""
    m, k = shots
    most = _DISTANCES / (m * k * repeats)
    return None if n <= most else max(1, int(most / k))


@functools.partial(jit_quickly, static_argnames=("largest", "queries"))
def _measure(
    keys: Key[Array, " r"],
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    taken: Bool[Array, "r k"],
    shots: Int[Array, "m k"],
    *,
    largest: int,
    queries: int | None,
) -> tuple[Float[Array, "r m k"], Float[Array, "m k k"]]:
    """Fractions of wrong queries by class, among the taken; by ordered pair, the mean over repeats.

    One repeat is in memory at a time.
    """
    num_classes = shots.shape[1]
    counts = jnp.bincount(labels, length=num_classes)
    sums = jnp.zeros((num_classes, features.shape[1]), features.dtype).at[labels].add(features)
    means = sums / counts[:, None].astype(features.dtype)
    between = jax.lax.map(lambda mean: jnp.sum((means - mean[None, :]) ** 2, axis=1), means)

    def one_repeat(
        so_far: Float[Array, "m k k"], draw: tuple[Key[Array, ""], Bool[Array, " k"]]
    ) -> tuple[Float[Array, "m k k"], Float[Array, "m k"]]:
        key, rivals = draw
        support, rank = draw_support(key, labels, counts, largest)
        sums = jnp.cumsum(features[support], axis=1)[jnp.arange(num_classes)[None, :], shots - 1]
        centroids = sums / shots.astype(sums.dtype)[:, :, None]
        if queries is None:
            x, y, is_query = features, labels, rank[:, None] >= shots.T[labels]
        else:
            rows, found = _after(rank, labels, jnp.max(shots, axis=0), queries, num_classes)
            x, y = features[rows], jnp.repeat(jnp.arange(num_classes, dtype=labels.dtype), queries)
            is_query = jnp.broadcast_to(found[:, None], (len(rows), len(shots)))
        wrong, wrong_pair = _count_wrong(x, y, centroids, means, between, is_query, rivals)
        asked = jnp.zeros((num_classes, len(shots)), x.dtype).at[y].add(is_query.astype(x.dtype)).T
        return so_far + wrong_pair / asked[:, :, None], wrong / asked

    zero = jnp.zeros((*shots.shape, num_classes), features.dtype)
    wrong_pair, wrong = jax.lax.scan(one_repeat, zero, (keys, taken))
    return wrong, wrong_pair / len(keys)


def _after(
    rank: Int[Array, " n"], labels: Int[Array, " n"], support: Int[Array, " k"], queries: int, num_classes: int
) -> tuple[Int[Array, " q"], Bool[Array, " q"]]:
    """Rows of the first `queries` samples of each class after its support, class by class; whether there is one."""
    place = rank - support[labels]
    inside = (place >= 0) & (place < queries)
    slot = jnp.where(inside, labels * queries + place, num_classes * queries)  # beyond the end: dropped
    rows = (
        jnp.full(num_classes * queries, -1, jnp.int32).at[slot].set(jnp.arange(len(rank), dtype=jnp.int32), mode="drop")
    )
    return jnp.maximum(rows, 0), rows >= 0


def _count_wrong(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    centroids: Float[Array, "m k d"],
    means: Float[Array, "k d"],
    between: Float[Array, "k k"],
    is_query: Bool[Array, "n m"],
    rivals: Bool[Array, " k"],
) -> tuple[Float[Array, "m k"], Float[Array, "m k k"]]:
    """Numbers of wrong queries: by class, among `rivals`, and by class i and any j. Blocked over samples.

    `between` holds the squared distances of the class means mu. Distances are compared from the mean of the query's
    class i: with a = x - mu_i and r_c = ||mu^_c - mu_i||^2,

        ||x - mu^_j||^2 - ||x - mu^_i||^2 = r_j - r_i - 2 a . (mu^_j - mu^_i),

    so that what rounds, and what counts as a tie, belongs to the pair: other classes may be far away.
    """
    m, k, d = centroids.shape
    n = labels.shape[0]
    blocks = -(-n * m * k // (2 * sizes().elements))
    size = -(-n // blocks)
    slip = centroids - means[None]
    moved = jnp.einsum("mjd,id->mij", slip, means, precision="highest")  # slip_j . mu_i
    along = jnp.diagonal(moved, axis1=1, axis2=2)[:, None, :] - moved
    radius = jnp.maximum(between[None] + jnp.sum(slip**2, axis=2)[:, None, :] + 2 * along, 0)  # [m, i, j]: r_j from i
    length = jnp.sqrt(jnp.sum(centroids**2, axis=2))

    def one_block(
        so_far: tuple[Float[Array, "k m"], Float[Array, "k m k"]],
        block: tuple[Float[Array, "s d"], Int[Array, " s"], Bool[Array, "s m"]],
    ) -> tuple[tuple[Float[Array, "k m"], Float[Array, "k m k"]], None]:
        x, y, query = block
        a = x - means[y]

        def to_own(values: Float[Array, "s m k"]) -> Float[Array, "s m 1"]:
            return jnp.take_along_axis(values, y[:, None, None], axis=2)

        products = jnp.dot(a, centroids.reshape(m * k, d).T, precision="highest").reshape(-1, m, k)
        r = radius[:, y].swapaxes(0, 1)
        margin = r - to_own(r) - 2 * (products - to_own(products))
        reach = jnp.sqrt(jnp.sum(a**2, axis=1))[:, None, None] + jnp.sqrt(r) + jnp.sqrt(to_own(r))
        rounding = _TIE * reach * (reach + (length[None] + length.T[y][:, :, None]) / 4)
        is_rival = jnp.arange(k, dtype=y.dtype)[None, None, :] != y[:, None, None]
        wrong = ~(margin > rounding) & is_rival & query[:, :, None]
        by_class, by_pair = so_far
        by_class = by_class.at[y].add(jnp.any(wrong & rivals[None, None, :], axis=2).astype(x.dtype))
        return (by_class, by_pair.at[y].add(wrong.astype(x.dtype))), None

    def in_blocks(array: Array) -> Array:
        padding = [(0, blocks * size - n)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(blocks, size, *array.shape[1:])  # padding is not a query

    zero = jnp.zeros((k, m), features.dtype), jnp.zeros((k, m, k), features.dtype)
    samples = in_blocks(features), in_blocks(labels), in_blocks(is_query)
    (by_class, by_pair), _ = jax.lax.scan(one_block, zero, samples)
    return by_class.T, by_pair.swapaxes(0, 1)
