"""Samples grouped by class into blocks of fixed shape, so that class sums are dense and memory stays in cache.

Class sums of unsorted samples need either a scatter or a one-hot product; both cost as much as the product they
follow. Here samples are sorted by class and classes padded to whole blocks, so that a block belongs to one class: sums
inside a block are dense, and only the few block sums are scattered. Blocks are gathered, centered, multiplied and
summed a few at a time: nothing of the size of the features is ever written.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.sizes import sizes
from dnc.types import Array, Float, Int, Key

_ROWS_UNCOMPENSATED = 2**16  # rows summed in plain float32 before the sum joins a compensated total


@array_dataclass
class ClassBlocks:
    """Block b, slot s of part p holds sample rows[p, b, s], of class block_class[p, b], with weight[p, b, s].

    Empty slots have weight 0. A class's blocks are adjacent: those from first[p, c] up to first[p, c + 1].
    """

    rows: Int[Array, "*parts blocks size"]
    weight: Float[Array, "*parts blocks size"]
    block_class: Int[Array, "*parts blocks"]
    first: Int[Array, "*parts k_plus_1"]


def block_size(n: int, num_classes: int) -> int:
    """Largest power of two in [16, 512] that pads a balanced sample by at most about a quarter."""
    size = 16
    while size < 512 and 8 * size * num_classes <= n:
        size *= 2
    return size


def class_blocks(
    labels: Int[Array, "parts n"], num_classes: int, weights: Float[Array, "parts n"] | None = None
) -> ClassBlocks:
    """Group each part's samples by class. The number of blocks, n // size + k, depends on shapes alone."""
    weights = jnp.ones(labels.shape, jnp.float32) if weights is None else weights
    return jax.vmap(functools.partial(_group, num_classes=num_classes))(labels.astype(jnp.int32), weights)


def _group(labels: Int[Array, " n"], weights: Float[Array, " n"], num_classes: int) -> ClassBlocks:
    (n,) = labels.shape
    size = block_size(n, num_classes)
    labels = jnp.where((labels >= 0) & (labels < num_classes), labels, num_classes)  # of samples that do not count
    order = _stable_order(labels, num_classes + 1)
    starts = jnp.searchsorted(labels[order], jnp.arange(num_classes + 1, dtype=jnp.int32)).astype(jnp.int32)
    counts = jnp.diff(starts)
    first = jnp.pad(jnp.cumsum(-(-counts // size)), (1, 0)).astype(jnp.int32)
    block = jnp.arange(n // size + num_classes, dtype=jnp.int32)
    owner = jnp.searchsorted(first[1:], block, side="right").astype(jnp.int32)
    block_class = jnp.minimum(owner, num_classes - 1)
    slot = jnp.arange(size, dtype=jnp.int32)[None, :]
    within = (block - first[block_class])[:, None] * size + slot  # position of the sample inside its class
    valid = (within < counts[block_class][:, None]) & (owner < num_classes)[:, None]
    rows = order[jnp.where(valid, starts[block_class][:, None] + within, 0)]
    return ClassBlocks(rows, jnp.where(valid, weights[rows], 0), block_class, first)


def _stable_order(labels: Int[Array, " n"], num_labels: int) -> Int[Array, " n"]:
    """Positions by label, and of equal labels in order; one array is sorted in a fourth of the time that two take."""
    n = len(labels)
    if num_labels * n >= 2**31:
        return jnp.argsort(labels).astype(jnp.int32)
    return jax.lax.sort(labels * n + jnp.arange(n, dtype=jnp.int32)) % n


@array_dataclass
class CenteredBlocks:
    """Samples in class blocks, which are summed relative to `origin` and their class's `mean`."""

    features: Float[Array, "parts n d"]
    blocks: ClassBlocks
    origin: Float[Array, " d"]
    mean: Float[Array, "k d"]  # relative to origin

    @property
    def num_classes(self) -> int:
        return self.mean.shape[0]

    def sums(
        self,
        terms: Callable[[Float[Array, "b s d"], Float[Array, "b s"], Int[Array, " b"]], Mapping[str, Array]],
    ) -> dict[str, Array]:
        """Class sums of `terms(residuals, weights, classes)`, which gives sums over each of its b blocks: [b, ...].

        Residuals of empty slots are 0. Float32, compensated: the error does not grow with the number of samples.
        """
        size = self.blocks.rows.shape[2]
        at_once = max(1, sizes().rows // size)
        chunks = -(-jnp.max(self.blocks.first[:, -1]) // at_once)
        per_group = max(1, _ROWS_UNCOMPENSATED // (at_once * size))

        def part(features: Array, blocks: ClassBlocks) -> tuple[dict[str, Array], dict[str, Array]]:
            def block_sums(start: Array) -> tuple[Array, Mapping[str, Array]]:
                r, w, owner = self._residuals(features, blocks, start, at_once)
                return owner, terms(r, w, owner)

            _, shapes = jax.eval_shape(block_sums, jnp.zeros((), jnp.int32))
            zero = {name: jnp.zeros((self.num_classes, *s.shape[1:]), s.dtype) for name, s in shapes.items()}

            def add_blocks(chunk: Array, total: dict[str, Array]) -> dict[str, Array]:
                owner, values = block_sums(chunk * at_once)
                return {name: total[name].at[owner].add(value) for name, value in values.items()}

            def add_group(group: Array, total: tuple[dict[str, Array], dict[str, Array]]):
                last = jnp.minimum((group + 1) * per_group, chunks)
                return _compensated_add(total, jax.lax.fori_loop(group * per_group, last, add_blocks, zero))

            return jax.lax.fori_loop(0, -(-chunks // per_group), add_group, (zero, zero))

        total, rounding = self._over_parts(part)
        return jax.tree.map(lambda a, b: a.sum(axis=0) + b.sum(axis=0), total, rounding)

    def map_second_moments(
        self, function: Callable[[symmetric.Stripes], Any], classes: Int[Array, " w"] | None = None
    ) -> Any:
        """`function(sum of w r r^T over the class)` of each class, stacked: memory of one matrix and the results."""
        size, d = self.blocks.rows.shape[2], self.mean.shape[1]
        at_once = max(1, sizes().product_rows // size)
        longest = jnp.max(jnp.diff(self.blocks.first, axis=1), axis=0)  # [k], over parts

        def of_class(c: Array) -> Any:
            def part(features: Array, blocks: ClassBlocks) -> symmetric.Stripes:
                def add(chunk: Array, total: symmetric.Stripes) -> symmetric.Stripes:
                    r, w, owner = self._residuals(features, blocks, blocks.first[c] + chunk * at_once, at_once)
                    w = jnp.where(owner[:, None] == c, w, 0)
                    return symmetric.add_outer_products(total, r.reshape(-1, d), w.reshape(-1))

                return jax.lax.fori_loop(0, -(-longest[c] // at_once), add, symmetric.zeros(d))

            return function(jax.tree.map(lambda stripe: stripe.sum(axis=0), self._over_parts(part)))

        return jax.lax.map(of_class, jnp.arange(self.num_classes, dtype=jnp.int32) if classes is None else classes)

    def _over_parts(self, function: Callable[[Array, ClassBlocks], Any]) -> Any:
        """Results of each part, stacked; parts laid out over devices stay there until the stack is summed."""
        if self.features.shape[0] > 1:
            return jax.vmap(function)(self.features, self.blocks)
        result = function(self.features[0], jax.tree.map(lambda leaf: leaf[0], self.blocks))
        return jax.tree.map(lambda leaf: leaf[None], result)

    def _residuals(
        self, features: Float[Array, "n d"], blocks: ClassBlocks, start: Array, count: int
    ) -> tuple[Float[Array, "b s d"], Float[Array, "b s"], Int[Array, " b"]]:
        """Residuals, weights and classes of the `count` blocks from `start`; weight 0 past the last one.

        Center before anything is multiplied: uncentered float32 second moments cancel.
        """
        block = start + jnp.arange(count, dtype=jnp.int32)
        inside = block < blocks.rows.shape[0]
        block = jnp.where(inside, block, 0)
        weight = jnp.where(inside[:, None], blocks.weight[block], 0)
        owner = blocks.block_class[block]
        x = features[blocks.rows[block]].astype(jnp.float32) - self.origin[None, None, :]
        r = x - self.mean[owner][:, None, :]
        return jnp.where(weight[:, :, None] > 0, r, 0), weight, owner


def _compensated_add(
    total: tuple[dict[str, Array], dict[str, Array]], values: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Add to an unevaluated sum of two float32, with the rounding error of the first kept in the second (Knuth)."""
    high, low = {}, {}
    for name, value in values.items():
        before, rounding = total[0][name], total[1][name]
        high[name] = before + value
        added = high[name] - before
        low[name] = rounding + ((before - (high[name] - added)) + (value - added))
    return high, low


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
