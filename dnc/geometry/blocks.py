"""Samples grouped by class into blocks of fixed shape.

Class sums of unsorted samples need either a scatter, slow on CPU, or a one-hot product, whose cost
grows with the number of classes. Here samples are sorted by class and classes padded to whole blocks, so
that a block belongs to one class: sums inside a block are dense, and only the few block sums are scattered.
"""

import functools

import jax
import jax.numpy as jnp

from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Bool, Float, Int


@array_dataclass
class ClassBlocks:
    """Block b, slot s holds sample rows[b, s] of class block_class[b] where valid[b, s]."""

    rows: Int[Array, "blocks size"]
    valid: Bool[Array, "blocks size"]
    block_class: Int[Array, " blocks"]
    counts: Int[Array, " k"]


def block_size(n: int, num_classes: int) -> int:
    """Largest power of two in [16, 512] that pads a balanced sample by at most about a quarter."""
    size = 16
    while size < 512 and 8 * size * num_classes <= n:
        size *= 2
    return size


@functools.partial(jax.jit, static_argnames="num_classes")
def class_blocks(labels: Int[Array, " n"], num_classes: int) -> ClassBlocks:
    """Group samples by class. The number of blocks, n // size + k, depends on shapes alone."""
    (n,) = labels.shape
    labels = labels.astype(jnp.int32)
    size = block_size(n, num_classes)
    blocks = n // size + num_classes
    order = jnp.argsort(labels).astype(jnp.int32)
    starts = jnp.searchsorted(labels[order], jnp.arange(num_classes + 1, dtype=jnp.int32)).astype(jnp.int32)
    counts = jnp.diff(starts)
    block_ends = jnp.cumsum(-(-counts // size)).astype(jnp.int32)
    block = jnp.arange(blocks, dtype=jnp.int32)
    owner = jnp.searchsorted(block_ends, block, side="right").astype(jnp.int32)
    block_class = jnp.minimum(owner, num_classes - 1)
    first_block = jnp.where(block_class > 0, block_ends[block_class - 1], 0)
    slot = jnp.arange(size, dtype=jnp.int32)[None, :]
    within = (block - first_block)[:, None] * size + slot  # position of the sample inside its class
    valid = (within < counts[block_class][:, None]) & (owner < num_classes)[:, None]
    rows = order[jnp.where(valid, starts[block_class][:, None] + within, 0)]
    return ClassBlocks(rows=rows, valid=valid, block_class=block_class, counts=counts)


def sum_by_class(values: Float[Array, "blocks *rest"], blocks: ClassBlocks) -> Float[Array, "k *rest"]:
    """Add up per-block sums into per-class sums."""
    return jax.ops.segment_sum(values, blocks.block_class, num_segments=blocks.counts.shape[0])
