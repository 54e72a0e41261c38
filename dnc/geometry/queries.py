"""Every sample as a query: its distance to every class, and the noise that centroids of few shots add to it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnc.geometry.far_classes import FAR_RANK, FAR_REFERENCES
from dnc.geometry.leading import RANK
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.query_geometry import QueryClasses, QueryGeometry, has_far, of_rows
from dnc.geometry.references import REFERENCES
from dnc.geometry.sizes import sizes
from dnc.types import Array, Bool, Float, Int

HELD = 2**23  # queries x classes up to which the geometry of all is kept; beyond, it is made where it is used
_FLAT_OPERATIONS = 1e12  # n k d^2, up to which quadratic forms of whole covariances are taken
_REFERENCE_OPERATIONS = 4e11  # products of queries with references, where there are many
_FEWEST_REFERENCES = 64  # of a class that has them


@array_dataclass
class QuerySource:
    """The samples, and what `rows` makes the geometry of any of them from: for more of it than can be held."""

    features: Float[Array, "n d"]
    labels: Int[Array, " n"]
    weights: Float[Array, " n"]
    origin: Float[Array, " d"]
    classes: QueryClasses

    @property
    def counted(self) -> Bool[Array, " n"]:
        """The samples that count."""
        return self.weights > 0

    @property
    def block_rows(self) -> int:
        """Queries whose geometry is made before it is used."""
        if has_far(len(self.classes.count)):
            size = sizes().near_queries  # of a part, whose near classes are looked at; a multiple of it
            return size * max(1, min(sizes().queries // size, -(-len(self.labels) // size)))
        most = max(1, sizes().distances // self.classes.references.weight.size)
        return min(len(self.labels), sizes().queries, most)

    def subset(self, classes: Int[Array, " w"]) -> "QuerySource":
        """The same for some of the classes; samples of the others get weight 0."""
        match = self.labels[:, None] == classes[None, :].astype(self.labels.dtype)
        return dataclasses.replace(
            self,
            labels=jnp.argmax(match, axis=1).astype(self.labels.dtype),
            weights=jnp.where(jnp.any(match, axis=1), self.weights, 0),
            classes=jax.tree.map(lambda leaf: leaf[classes], self.classes),
        )

    def rows(self, rows: Int[Array, " b"]) -> QueryGeometry:
        """The geometry of samples by their numbers; of numbers beyond the last, with weight 0."""
        if has_far(len(self.classes.count)) and len(rows) > (size := sizes().near_queries):
            made = jax.lax.map(self.rows, rows.reshape(-1, size))
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), made)
        n = len(self.labels)
        inside, rows = rows < n, jnp.minimum(rows, n - 1)
        weights = jnp.where(inside, self.weights[rows], 0)
        x = self.features[rows].astype(jnp.float32) - self.origin[None, :]
        x = jnp.where(weights[:, None] > 0, x, 0)
        return of_rows(x, rows, self.labels[rows], weights, self.classes)

    def blocks(self) -> Int[Array, "blocks b"]:
        """Numbers of all samples class by class, so that those of a block have near classes in common; and of some
        beyond the last.
        """
        n, size = len(self.labels), self.block_rows
        order = jnp.argsort(self.labels, stable=True)
        return jnp.concatenate([order, jnp.arange(n, n + -n % size)]).reshape(-1, size)

    def in_order(self, values: Any) -> Any:
        """Arrays [blocks, b, ...] of all blocks as arrays [n, ...] of the samples in their order."""
        rows = self.blocks().ravel()
        flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), values)
        return jax.tree.map(lambda a: jnp.zeros_like(a).at[rows].set(a)[: len(self.labels)], flat)

    def held(self) -> QueryGeometry:
        """The geometry of all samples."""
        return self.in_order(jax.lax.map(self.rows, self.blocks()))


Queries = QueryGeometry | QuerySource


def covariance_form(n: int, num_classes: int, dimension: int, largest: int | None = None) -> tuple[str, int]:
    """How class covariances are kept, "samples", "flat" or "leading", and how many references of each class.

    largest: at least as many samples as any class has.
    """
    products, largest = float(n) * num_classes * dimension, n if largest is None else largest
    references = min(REFERENCES, n, 4 * -(-n // num_classes))
    if largest <= min(references, dimension):
        return "samples", largest
    affordable = max(_FEWEST_REFERENCES, int(_REFERENCE_OPERATIONS / products))
    return "flat" if products * dimension <= _FLAT_OPERATIONS else "leading", min(references, affordable)


def query_operations(n: int, num_classes: int, dimension: int, largest: int | None = None) -> float:
    """Multiplications that the geometry of all queries takes."""
    form, references = covariance_form(n, num_classes, dimension, largest)
    each = {"samples": 0, "flat": dimension, "leading": min(RANK, dimension)}[form]
    if has_far(num_classes):
        far = references if form == "samples" else FAR_REFERENCES + FAR_RANK
        return float(n) * dimension * (sizes().near * (references + each) + num_classes * far)
    return float(n) * num_classes * dimension * (references + each)


@dataclasses.dataclass(frozen=True)
class Pass:
    """Something that is made of all queries, block by block, so that several can share the blocks.

    step: (total, block) -> the next total, and arrays [b, ...] of the block's queries or None.
    finish: (total, arrays [n, ...] of all queries or None) -> the result.
    rows: queries at once, at most.
    """

    initial: Any
    step: Callable[[Any, QueryGeometry], tuple[Any, Any]]
    finish: Callable[[Any, Any], Any]
    rows: int


def look(queries: Queries, *passes: Pass) -> tuple[Any, ...]:
    """The results of passes over the same queries. Padding of blocks has weight 0."""

    def step(totals: tuple[Any, ...], block: QueryGeometry) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        found = [each.step(total, block) for each, total in zip(passes, totals, strict=True)]
        return tuple(total for total, _ in found), tuple(values for _, values in found)

    initial, size = tuple(each.initial for each in passes), min(each.rows for each in passes)
    totals, values = _scan(step, initial, queries, size)
    return tuple(each.finish(*found) for each, *found in zip(passes, totals, values, strict=True))


def _scan(step: Callable[[Any, QueryGeometry], tuple[Any, Any]], total: Any, queries: Queries, size: int) -> Any:
    if isinstance(queries, QuerySource):
        source = queries
        blocks = lambda total, rows: _scan(step, total, source.rows(rows), size)  # noqa: E731
        total, values = jax.lax.scan(blocks, total, source.blocks())
        return total, source.in_order(values)
    total, values = jax.lax.scan(step, total, _in_blocks(queries, size))
    return total, _unblocked(values, len(queries.labels))


def _in_blocks(queries: QueryGeometry, size: int) -> QueryGeometry:
    n = len(queries.labels)
    size = max(1, min(n, size))
    padded = jax.tree.map(lambda a: jnp.pad(a, [(0, -n % size)] + [(0, 0)] * (a.ndim - 1), mode="edge"), queries)
    padded = dataclasses.replace(padded, weight=jnp.pad(queries.weight, (0, -n % size)))
    return jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), padded)


def _unblocked(values: Any, n: int) -> Any:
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], values)
