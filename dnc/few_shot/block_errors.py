"""Errors of a rule on disjoint blocks of a sample, each a support and a query of every class."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dnc.compiling import jit_quickly
from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.references import ROUNDING
from dnc.types import Array, Bool, Float, Int, Key

Rule: TypeAlias = Callable[[Array, Array, Array], Array]  # (support, taken, queries) -> errors, as `nearest_center`

_FEW_CENTERS = 64  # up to which distances come from differences
_CLOSE = 0.05  # least ||mu^_i - mu^_j||^2 / (||mu^_i||^2 + ||mu^_j||^2) for which a product is accurate enough
_PAIRINGS, _QUERIES = 16, 1024  # of the supports and queries of a shuffle; of a support, where there are many classes


def nearest_center(
    support: Float[Array, "k m d"], taken: Bool[Array, "k m"], queries: Float[Array, "k q d"]
) -> Float[Array, "k q"]:
    """1 for each query that is not strictly nearest to its class's center, the mean of the class's support; else 0.

    Compared from the center of the query's class i: with a = x - mu^_i,

        ||x - mu^_j||^2 - ||x - mu^_i||^2 = ||mu^_j - mu^_i||^2 - 2 a . (mu^_j - mu^_i),

    so that what rounds, and what counts as a tie, belongs to the pair: other classes may be far away.
    """
    k = support.shape[0]
    chosen = taken.astype(support.dtype)
    share = chosen / jnp.sum(chosen, axis=1, keepdims=True)
    centers = jnp.einsum("kmd,km->kd", support, share, precision="highest")
    between, rounded = _between(centers)
    a = queries - centers[:, None, :]
    along = jnp.einsum("iqd,jd->iqj", a, centers, precision="highest")
    own = jnp.arange(k, dtype=jnp.int32)[:, None, None]
    margin = between[:, None, :] - 2 * (along - jnp.take_along_axis(along, own, axis=2))
    length = jnp.sqrt(jnp.sum(centers**2, axis=1))
    reach = jnp.sqrt(jnp.sum(a**2, axis=2))[:, :, None] + jnp.sqrt(between)[:, None, :]
    rounding = ROUNDING * reach * (reach + (length[None, :] + length[:, None])[:, None, :] / 4)
    rounding = rounding + rounded[:, None, :]
    rivals = own != jnp.arange(k, dtype=jnp.int32)[None, None, :]
    return jnp.any(~(margin > rounding) & rivals, axis=2).astype(queries.dtype)


def _between(centers: Float[Array, "k d"]) -> tuple[Float[Array, "k k"], Float[Array, "k k"]]:
    """||mu^_i - mu^_j||^2, and a bound on the rounding error that a product adds, 0 of differences.

    From differences; of many centers by one product, unless some are so close that its rounding would matter.
    """

    def from_differences() -> tuple[Float[Array, "k k"], Float[Array, "k k"]]:
        squares = jax.lax.map(lambda center: jnp.sum((centers - center[None]) ** 2, axis=1), centers)
        return squares, jnp.zeros_like(squares)

    if len(centers) <= _FEW_CENTERS:
        return from_differences()
    same, square = jnp.eye(len(centers), dtype=bool), jnp.sum(centers**2, axis=1)
    size = square[:, None] + square[None, :]
    squares = jnp.where(same, 0, size - 2 * jnp.dot(centers, centers.T, precision="highest"))
    apart = jnp.all((squares > _CLOSE * size) | same)
    return jax.lax.cond(apart, lambda: (squares, ROUNDING * size), from_differences)


def block_errors(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    shots: Int[np.ndarray, " k"],
    blocks: int,
    rule: Rule,
    keys: Key[Array, " r"],
) -> Float[np.ndarray, "e b k"]:
    """Error of each class's query in each block, for every shuffle and each way to pair its supports and queries."""
    settings = {"rule": rule, "most": int(shots.max()), "blocks": blocks}
    orders = shuffled_orders(keys, labels, len(shots))
    errors = np.asarray(shuffled_errors(orders, features, labels, jnp.asarray(shots, jnp.int32), **settings))
    if not ((errors >= 0) & (errors <= 1)).all():
        raise ValueError(f"rule must give errors in [0, 1], got {errors.min()}..{errors.max()}")
    return errors.reshape(-1, *errors.shape[2:])


@functools.partial(jit_quickly, static_argnames="num_classes")
def shuffled_orders(keys: Key[Array, " r"], labels: Int[Array, " n"], num_classes: int) -> Int[Array, "r n"]:
    """Rows of class 0, then those of class 1, ..., each class shuffled: one program for all numbers of shots."""
    counts = jnp.bincount(labels, length=num_classes).astype(jnp.int32)
    return jax.lax.map(lambda key: shuffled_classes(key, labels, counts)[0].astype(jnp.int32), keys)


@functools.partial(jit_quickly, static_argnames=("rule", "most", "blocks"))
def shuffled_errors(
    orders: Int[Array, "r n"],
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    shots: Int[Array, " k"],
    *,
    rule: Rule,
    most: int,
    blocks: int,
) -> Float[Array, "r t b k"]:
    """Block b's support is judged by the queries of the blocks b, b + 1, ..., b + t - 1, modulo B: t pairings of them.

    One block's samples are in memory at a time.
    """
    pairings = min(_PAIRINGS, blocks, max(1, _QUERIES // shots.shape[0]))
    counts = jnp.bincount(labels, length=shots.shape[0]).astype(jnp.int32)
    starts = jnp.cumsum(counts) - counts
    number = jnp.arange(blocks, dtype=jnp.int32)
    first = starts[None, :] + number[:, None] * (shots + 1)[None, :]  # [b, k], in the order by class
    slot = jnp.arange(most, dtype=jnp.int32)
    taken = slot[None, :] < shots[:, None]
    within = jnp.minimum(slot[None, :], shots[:, None] - 1)

    def of_shuffle(order: Int[Array, " n"]) -> Float[Array, "t b k"]:
        queries = order[first + shots[None, :]]
        queries = jnp.concatenate([queries, queries[: pairings - 1]])

        def of_block(b: Int[Array, ""]) -> Float[Array, "k t"]:
            support = features[order[first[b][:, None] + within]]
            paired = jax.lax.dynamic_slice_in_dim(queries, b, pairings)
            return rule(support, taken, features[paired.T])

        return jax.lax.map(of_block, number).transpose(2, 0, 1)

    return jax.lax.map(of_shuffle, orders)
