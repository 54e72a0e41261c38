"""Every sample as a query: its distance to every class, and the noise that centroids of few shots add to it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.leading import RANK, Leading
from dnc.geometry.moments import inverse
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.references import (
    REFERENCES,
    ROUNDING,
    References,
    ReferenceTerms,
    few_shot_shares,
)
from dnc.geometry.sizes import sizes
from dnc.types import Array, Bool, Float, Int

HELD = 2**23  # queries x classes up to which the geometry of all is kept; beyond, it is made where it is used
_FLAT_OPERATIONS = 1e12  # n k d^2, up to which quadratic forms of whole covariances are taken
_REFERENCE_OPERATIONS = 4e11  # products of queries with references, where there are many
_FEWEST_REFERENCES = 64  # of a class that has them


@array_dataclass
class QueryGeometry:
    """For query x and class c, with b = x - mu_c: moments of ||x - mu^_c||^2 over centroids mu^_c follow from these.

    A query never meets itself among the shots: moments of its own class leave it out. Population moments (1/n).
    Own-class moments of order two and above are at least what rounds in their subtraction.
    """

    labels: Int[Array, " n"]
    weight: Float[Array, " n"]  # share of the query in its class; 0 for samples that do not count
    left: Float[Array, " n"]  # samples of its class without it, or the sum of their weights
    squared_distance: Float[Array, "n k"]  # ||b||^2
    along: Float[Array, "n k"]  # b^T Sigma_c b
    most: Float[Array, "n k"] | None  # at least that, where `along` is not exact
    skew: Float[Array, "n k"]  # b.t_c, t_c = E_{z~c}[(z - mu_c) ||z - mu_c||^2]
    smeared: Float[Array, "n k"]  # ||Sigma_c b||^2
    cubic: Float[Array, "n k"]  # E[(b.a)^3], a = z - mu_c over the references z of c
    mixed: Float[Array, "n k"]  # E[(b.a)^2 ||a||^2] over the same
    own_variance: Float[Array, " n"]  # tr Sigma of the query's class without it
    own_fourth: Float[Array, " n"]  # E||z - mu||^4 of it
    own_square: Float[Array, " n"]  # tr Sigma^2 of it
    length: Float[Array, " n"]  # of the query from the origin that all features were measured from
    references: ReferenceTerms  # the rule with one to three shots

    @property
    def counted(self) -> Bool[Array, " n"]:
        """The samples that count."""
        return self.weight > 0

    def subset(self, classes: Int[Array, " w"]) -> "QueryGeometry":
        """The same for some of the classes; samples of the others get weight 0."""
        match = self.labels[:, None] == classes[None, :].astype(self.labels.dtype)
        pairs = ("squared_distance", "along", "most", "skew", "smeared", "cubic", "mixed")
        kept = {name: values[:, classes] for name in pairs if (values := getattr(self, name)) is not None}
        return dataclasses.replace(
            self,
            labels=jnp.argmax(match, axis=1).astype(self.labels.dtype),
            weight=jnp.where(jnp.any(match, axis=1), self.weight, 0),
            references=self.references.subset(classes),
            **kept,
        )


@array_dataclass
class Samples:
    """Covariances of classes whose references are all of their samples: A^T diag(weight) A, by A A^T."""

    gram: Float[Array, "*k s s"]


@array_dataclass
class QueryClasses:
    """What queries are held against, of each class. Population moments, about the mean."""

    count: Float[Array, " k"]  # or sum of weights
    center: Float[Array, "k d"]  # its mean, from the source's origin, without what rounded in it
    variance: Float[Array, " k"]
    third_moment: Float[Array, "k d"]
    fourth_moment: Float[Array, " k"]
    square: Float[Array, " k"]  # tr Sigma^2
    references: References
    covariance: Samples | Float[Array, "k f"] | Leading  # of few samples; flat; where that takes long, bounded


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
        """Queries whose geometry is made at once."""
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
        n = len(self.labels)
        inside, rows = rows < n, jnp.minimum(rows, n - 1)
        weights = jnp.where(inside, self.weights[rows], 0)
        x = self.features[rows].astype(jnp.float32) - self.origin[None, :]
        x = jnp.where(weights[:, None] > 0, x, 0)
        return _of_rows(x, rows, self.labels[rows], weights, self.classes)

    def blocks(self) -> Int[Array, "blocks b"]:
        """Numbers of all samples, and of some beyond the last."""
        n, size = len(self.labels), self.block_rows
        return jnp.arange(n + -n % size).reshape(-1, size)

    def held(self) -> QueryGeometry:
        """The geometry of all samples."""
        return _unblocked(jax.lax.map(self.rows, self.blocks()), len(self.labels))


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
    else:
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


def _of_rows(
    x: Float[Array, "b d"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    classes: QueryClasses,
) -> QueryGeometry:
    """Query geometry of some rows.

    With a = x - mu of its own class, of N samples (sum of weights) of which x counts w, and h = a w/(N - w), b = a + h,
    sums over the others are sums over all, about the mean moved by h, less the query's:

        Sigma' = [N (Sigma + h h^T) - w b b^T] / (N - w),     v' = tr Sigma',
        t'     = [N (t + 2 Sigma h + (v + ||h||^2) h) - w b ||b||^2] / (N - w),
        M4'    = [N (M4 + 4 h.t + 4 h^T Sigma h + 2 v ||h||^2 + ||h||^4) - w ||b||^4] / (N - w).
    """
    k = len(classes.count)
    n, w = classes.count[labels], weights
    rest = jnp.where(n > w, n - w, 1)
    s, g = w / rest, n / rest  # h = s a, b = g a; sums over all weigh g, the query s

    def of_class(arguments: tuple[Array, QueryClasses]) -> tuple[dict[str, Array], Array, Array]:
        """About all samples of class c: what `own` queries are left out of, they are left out of below."""
        c, of = arguments
        b, own = x - of.center[None, :], labels == c.astype(labels.dtype)
        distance = jnp.sum(b * b, axis=1)
        products = jnp.dot(b, of.references.centered.T, precision="highest")
        terms = {"distance": distance, "skew": jnp.dot(b, of.third_moment, precision="highest")}
        terms |= _quadratic_forms(b, distance, products, of)
        squares = of.references.square[None] + jnp.where(own[:, None], (2 * s[:, None] * products), 0)
        squares = squares + jnp.where(own, s**2 * distance, 0)[:, None]
        products = jnp.where(own[:, None], g[:, None] * (products + (s * distance)[:, None]), products)
        others = jnp.where(of.references.rows[None] == rows[:, None], 0, of.references.weight[None])
        second = others * inverse(jnp.sum(others, axis=1, keepdims=True)) * products**2
        terms |= {"cubic": jnp.sum(second * products, axis=1), "mixed": jnp.sum(second * squares, axis=1)}
        apart = jnp.where(own, g**2 * distance, distance)[:, None] - 2 * products + squares  # ||x - z||^2
        return terms, jnp.maximum(apart, 0), others

    numbers = jnp.arange(k, dtype=jnp.int32)
    terms, apart, others = jax.lax.map(of_class, (numbers, classes))
    terms = {name: value.T for name, value in terms.items()}

    own = labels[:, None] == numbers.astype(labels.dtype)[None, :]
    # of a
    r, q, p, moved = (
        jnp.sum(jnp.where(own, terms[name], 0), axis=1) for name in ("distance", "along", "skew", "smeared")
    )
    v, m4, square = classes.variance[labels], classes.fourth_moment[labels], classes.square[labels]
    bb, hh = g**2 * r, s**2 * r
    taken, least = s * bb**2, ROUNDING * s * bb**2
    of_own = (g * s * r) ** 2
    own_skew = g * (g * p + 2 * g * s * q + (v + hh) * g * s * r) - taken - least
    own_variance = g * (v + hh) - s * bb
    own_fourth = g * (m4 + 4 * s * p + 4 * s**2 * q + 2 * v * hh + hh**2) - taken
    own_square = g**2 * (square + 2 * s**2 * q + hh**2) - 2 * g * s * (g**2 * q + of_own) + (s * bb) ** 2
    turned = g * s * (s - g)  # Sigma' = g Sigma + turned a a^T
    own_smeared = g**2 * (g**2 * moved + turned * r * (2 * g * q + turned * r**2))
    squared_distance = jnp.where(own, bb[:, None], terms["distance"])

    def without_query(along: Float[Array, "b k"]) -> Float[Array, "b k"]:
        of_class = jnp.sum(jnp.where(own, along, 0), axis=1)
        mine = g * (g**2 * of_class + of_own) - taken
        return jnp.where(own, jnp.maximum(mine, least)[:, None], along)

    return QueryGeometry(
        labels=labels,
        weight=jnp.where(n > w, w / jnp.where(n > 0, n, 1), 0),
        left=rest,
        squared_distance=squared_distance,
        along=without_query(terms["along"]),
        most=without_query(terms["most"]) if "most" in terms else None,
        skew=jnp.where(own, own_skew[:, None], terms["skew"]),
        smeared=jnp.where(own, jnp.maximum(own_smeared, 0)[:, None], terms["smeared"]),
        cubic=terms["cubic"],
        mixed=terms["mixed"],
        own_variance=jnp.maximum(own_variance, 0),
        own_fourth=jnp.maximum(own_fourth, least),
        own_square=jnp.maximum(own_square, s * least),
        length=jnp.linalg.norm(x, axis=1),
        references=few_shot_shares(classes.references, apart, others, labels),
    )


def _quadratic_forms(
    b: Float[Array, "b d"], distance: Float[Array, " b"], products: Float[Array, "b s"], of: QueryClasses
) -> dict[str, Float[Array, " b"]]:
    """b^T Sigma b, an upper bound of it where it is not exact, and ||Sigma b||^2 of one class."""
    if isinstance(of.covariance, Samples):
        share = of.references.weight * inverse(jnp.sum(of.references.weight))
        weighed = share[None] * products
        smeared = jnp.sum(jnp.dot(weighed, of.covariance.gram, precision="highest") * weighed, axis=1)
        return {"along": jnp.sum(weighed * products, axis=1), "smeared": jnp.maximum(smeared, 0)}
    if isinstance(of.covariance, Leading):
        parts = jnp.dot(b, of.covariance.factor.T, precision="highest") ** 2
        along, values = jnp.sum(parts, axis=1), jnp.sum(of.covariance.factor**2, axis=1)
        return {
            "along": along + of.covariance.rest * distance,
            "most": along + of.covariance.most * distance,
            "smeared": jnp.sum(parts * values[None], axis=1) + of.covariance.rest**2 * distance,
        }
    sigma = symmetric.dense(symmetric.stripes_of(of.covariance, b.shape[1]))
    moved = jnp.dot(b, sigma, precision="highest")
    return {"along": jnp.sum(moved * b, axis=1), "smeared": jnp.sum(moved * moved, axis=1)}
