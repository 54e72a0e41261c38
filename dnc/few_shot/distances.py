"""What the nearest-center rule of m shots does with a block of queries: P(error | x), from the law of its distances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import roots_hermitenorm

from dnc.certificates.margin import margin_terms
from dnc.few_shot.skewed import below, log_above, normal_score, quantile
from dnc.geometry.pairs import PairGeometry, trace_of_square
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.queries import Pass, Queries, look
from dnc.geometry.query_geometry import NEAREST, QueryGeometry
from dnc.geometry.references import FEWEST, ROUNDING
from dnc.geometry.sizes import sizes
from dnc.types import Array, Bool, Float, Int

_NODES = 31
_FEW = 30  # samples of a class; from fewer, third cumulants are mostly noise, and taken to be smaller
_SURE = 0.1  # share of a sample's variance along a query's direction that is never taken for noise
_FAR_NODES = (-1.7, 0.0, 1.7)
_NEGLIGIBLE = 1e-3  # probability that any of the rivals beyond the nearest is nearer, about
_ALMOST_NEVER = 1e-12


@array_dataclass
class Classes:
    """What all queries share: unbiased class moments, and how margins scatter over the queries of a class."""

    count: Float[Array, " k"]
    variance: Float[Array, " k"]
    square: Float[Array, " k"]
    fourth: Float[Array, " k"]
    cube: Float[Array, " k"]
    margin: Float[Array, "k k"]  # [i, c]: mean over queries of class i of E_c - E_i at infinitely many shots
    kept: Float[Array, "k k"]  # [i, c]: factor on what is beyond that mean


@array_dataclass
class Columns:
    """The classes that a block of queries is compared with."""

    block: QueryGeometry  # of these classes: arrays [b, j]
    own: Bool[Array, "b j"]
    classes: Int[Array, "b j"] | None  # None: all, in order

    @property
    def place(self) -> tuple[Int[Array, "b 1"], Int[Array, "b j"]]:
        """Of some classes, where they are among all."""
        assert self.classes is not None
        return jnp.arange(len(self.classes))[:, None], self.classes

    def of_class(self, values: Float[Array, " k"]) -> Float[Array, "#b j"]:
        return values[None] if self.classes is None else values[self.classes]

    def of_pair(self, values: Float[Array, "k k"]) -> Float[Array, "b j"]:
        rows = values[self.block.labels]
        return rows if self.classes is None else jnp.take_along_axis(rows, self.classes, axis=1)


@array_dataclass
class Compared:
    """What a block of queries is compared with: every class and, of many, those near each query."""

    every: Columns
    near: Columns | None


def compared(block: QueryGeometry) -> Compared:
    """Of many classes, the nearest rivals are looked at closely."""
    every = Columns(block, own_class(block), None)
    return Compared(every, None if every.own.shape[1] <= NEAREST + 1 else _nearest(block, every.own))


def of_queries(
    block: Compared, classes: Classes, m: Float[Array, " k"], few: bool, pairs: bool
) -> tuple[Float[Array, " b"], Float[Array, "b k"] | None]:
    """P(error | x) and, for `pairs`, P(T_j <= T_i | x) with 0 for the query's own class i.

    Rivals that are not near are looked at at three distances to the own centroid, and not at all where the least of the
    nearest hardly matters. Cumulants are skipped where the references give the answer to every query that counts, of
    one to three shots.
    """
    if few:
        size = jnp.round(jnp.clip(m[0], 1, FEWEST))
        right, farther = (
            jnp.where(jnp.all(m == size), values[..., size.astype(jnp.int32) - 1], jnp.nan)
            for values in (block.every.block.references.right, block.every.block.references.farther)
        )
        known = ~jnp.isnan(right)
        error, wrong = jax.lax.cond(
            jnp.all(known | ~block.every.block.counted),
            lambda: (jnp.zeros_like(right), jnp.zeros_like(farther) if pairs else None),
            lambda: _by_cumulants(block, classes, m, pairs),
        )
        error = jnp.where(known, 1 - right, error)
        wrong = None if wrong is None else jnp.where(known[:, None], 1 - farther, wrong)
    else:
        error, wrong = _by_cumulants(block, classes, m, pairs)
    return error, None if wrong is None else jnp.where(block.every.own, 0, wrong)


def _by_cumulants(
    block: Compared, classes: Classes, m: Float[Array, " k"], pairs: bool
) -> tuple[Float[Array, " b"], Float[Array, "b k"] | None]:
    every, near = block.every, block.near
    columns = every if near is None else near
    cumulants = distance_cumulants(columns, classes, m)
    error, wrong = _nearest_wrong(*cumulants, columns.own), _farther_wrong(*cumulants, columns.own)
    if near is None:
        return error, wrong if pairs else None
    return jax.lax.cond(
        jnp.max(wrong[:, -1]) * wrong.shape[1] > _NEGLIGIBLE,
        lambda: _with_far(every, near, cumulants, wrong, classes, m, pairs),
        lambda: (error, jnp.zeros_like(every.block.along).at[near.place].set(wrong) if pairs else None),
    )


def _with_far(
    every: Columns,
    near: Columns,
    cumulants: tuple[Float[Array, "b j"], Float[Array, "b j"], Float[Array, "b j"]],
    wrong: Float[Array, "b j"],
    classes: Classes,
    m: Float[Array, " k"],
    pairs: bool,
) -> tuple[Float[Array, " b"], Float[Array, "b k"] | None]:
    """P(error | x) and P(T_j <= T_i | x) of all rivals; `cumulants` and `wrong` are of the near."""
    of_every = distance_cumulants(every, classes, m)
    far = jnp.ones_like(every.own).at[near.place].set(False)
    values = jnp.log(_missed(of_every, every.own, far) + _ALMOST_NEVER)
    margin, variance, _ = of_every
    nodes = jnp.asarray(np.polynomial.polynomial.polyvander(roots_hermitenorm(_NODES)[0], 2), margin.dtype)
    to_powers = jnp.asarray(np.linalg.inv(np.polynomial.polynomial.polyvander(_FAR_NODES, 2)), margin.dtype)
    missed_at = jnp.exp(jnp.dot(nodes, jnp.dot(to_powers, values, precision="highest"), precision="highest"))
    error = _nearest_wrong(*cumulants, near.own, -missed_at.T)
    if not pairs:
        return error, None
    return error, below(-margin / jnp.sqrt(variance + of_own(variance, every.own))).at[near.place].set(wrong)


def _missed(
    cumulants: tuple[Float[Array, "b k"], Float[Array, "b k"], Float[Array, "b k"]],
    own: Bool[Array, "b k"],
    far: Bool[Array, "b k"],
) -> Float[Array, "f b"]:
    """-log P(all T_j of the far > T_i | x), where T_i lies at its quantiles of `_FAR_NODES`."""
    margin, variance, third = cumulants
    deviation = jnp.sqrt(variance)
    skewness, apart = third / deviation**3, jnp.where(far, margin, jnp.inf)

    def at(z: float) -> Float[Array, " b"]:
        nearer = quantile(jnp.full((1, 1), z), of_own(skewness, own)) * of_own(deviation, own)
        y = normal_score((nearer - apart) / deviation, skewness)
        return -jnp.sum(log_above(y), axis=1)

    return jnp.stack([at(z) for z in _FAR_NODES])


def _nearest(block: QueryGeometry, own: Bool[Array, "b k"]) -> Columns:
    """Of each query its own class and the nearest rivals, the nearest first."""
    distance = jnp.where(own, -jnp.inf, block.squared_distance)
    near = jax.lax.top_k(-distance, NEAREST + 1)[1]
    names = ("squared_distance", "along", "skew", "smeared", "cubic", "mixed")
    taken = {name: jnp.take_along_axis(getattr(block, name), near, axis=1) for name in names}
    return Columns(dataclasses.replace(block, most=None, **taken), near == block.labels[:, None], near)


def distance_cumulants(
    columns: Columns, classes: Classes, m: Float[Array, " k"]
) -> tuple[Float[Array, "b j"], Float[Array, "b j"], Float[Array, "b j"]]:
    """Mean (less that of T_i), variance and third cumulant of T_c given the query, corrected for the sample's size.

    With b = x - mu_c, a = z - mu_c and s = 1/m,

        N = 4 s b^T Sigma b - 4 s^2 b.t + (M4 - v^2) s^3 + 2 (s^2 - s^3) tr Sigma^2,
        K = -8 s^2 E[(b.a)^3] + 12 s^3 (E[(b.a)^2 ||a||^2] - v b^T Sigma b)
            + 24 (s^2 - s^3) ||Sigma b||^2 + 8 s^3 tr Sigma^3

    up to terms of K of order s^3 that vanish for symmetric distributions. K counts n^2 / (n^2 + 30^2): third moments of
    few samples are mostly noise.
    """
    block, own = columns.block, columns.own
    n, v = _count(columns, classes), _variance(columns, classes)
    s, more = 1 / columns.of_class(m), _factor(n)
    own_square = _unbiased_square(block.left, block.own_square, block.own_variance, block.own_fourth)
    square = jnp.where(own, own_square[:, None], columns.of_class(classes.square))
    fourth = jnp.where(own, block.own_fourth[:, None], columns.of_class(classes.fourth))
    distance = block.squared_distance
    rounding = ROUNDING * (distance + v)
    along = jnp.maximum(more * block.along - square / n, _SURE * more * block.along + rounding * distance)
    noise = v * along / jnp.maximum(n - 1, 1)
    smeared = jnp.maximum((more**2 * block.smeared - noise) / more, along**2 / jnp.maximum(distance, rounding))
    spread = jnp.maximum(fourth - v**2, 0) * s**3 + 2 * (s**2 - s**3) * square
    variance = jnp.maximum(4 * s * along - 4 * s**2 * block.skew + spread, 0) + rounding**2
    third = 12 * s**3 * (block.mixed - v * block.along) - 8 * s**2 * block.cubic
    third = third + 24 * (s**2 - s**3) * smeared + 8 * s**3 * columns.of_class(classes.cube)
    third = third * n**2 / (n**2 + _FEW**2)
    settled, margin = columns.of_pair(classes.margin), _margins(columns, classes)
    margin = settled + columns.of_pair(classes.kept) * (margin - settled)
    margin = margin + s * v - of_own(s * v, own)
    return jnp.where(own, 0, margin), variance, third


def shared(geometry: PairGeometry) -> Classes:
    """Class moments of 1/(n - 1), and the mean and the signal's share of the margins of each class's queries.

    Where overlaps are upper bounds, more of the margins' scatter counts as noise than is.
    """
    queries, terms = queries_of(geometry), margin_terms(geometry)
    if geometry.ddof or geometry.trace_of_cube is None:
        raise ValueError("predictions start from population moments: give the geometry as it was measured")
    n, k = geometry.counts, geometry.counts.shape[0]
    more = _factor(n)
    square = _unbiased_square(n, jnp.diag(terms.covariance_overlap), geometry.variance, geometry.fourth_moment)
    classes = Classes(
        count=n,
        variance=more * geometry.variance,
        square=square,
        fourth=geometry.fourth_moment,
        cube=geometry.trace_of_cube,
        margin=jnp.zeros((k, k)),
        kept=jnp.ones((k, k)),
    )

    def step(total: tuple[Array, Array], block: QueryGeometry) -> tuple[tuple[Array, Array], None]:
        columns = Columns(block, own_class(block), None)
        beyond = _margins(columns, classes) - geometry.squared_distance[block.labels]
        powers = (block.weight[:, None] * beyond, block.weight[:, None] * beyond**2)
        first, second = (sums.at[block.labels].add(values) for sums, values in zip(total, powers, strict=True))
        return (first, second), None

    zero = jnp.zeros((k, k)), jnp.zeros((k, k))
    ((first, second),) = look(queries, Pass(zero, step, lambda sums, _: sums, block_rows(k)))
    scatter = more[:, None] * jnp.maximum(second - first**2, 0)
    overlap = more[:, None] * more[None, :] * terms.covariance_overlap / n[None, :]
    noise = 4 * (square / jnp.maximum(n - 1, 1))[:, None] + 4 * overlap
    kept = jnp.sqrt(jnp.maximum(1 - noise / jnp.where(scatter > 0, scatter, 1), 0))
    margin = jnp.maximum(geometry.squared_distance + first, 0)  # below, the means cannot be told apart: guessing
    return dataclasses.replace(classes, margin=margin, kept=jnp.where(scatter > 0, kept, 1))


def _margins(columns: Columns, classes: Classes) -> Float[Array, "b j"]:
    """E_c - E_i at infinitely many shots, for the query's own class i."""
    far = columns.block.squared_distance - _variance(columns, classes) / _count(columns, classes)
    return far - of_own(far, columns.own)


def _nearest_wrong(
    margin: Float[Array, "b j"],
    variance: Float[Array, "b j"],
    third: Float[Array, "b j"],
    own: Bool[Array, "b j"],
    others: Float[Array, "b nodes"] | None = None,
) -> Float[Array, " b"]:
    """P(some T_j <= T_i | x), with means T_c relative to that of T_i; `others`: log P(T_j > t) of more rivals at the
    nodes.
    """
    deviation = jnp.sqrt(variance)
    skewness = third / deviation**3
    z, weight = roots_hermitenorm(_NODES)
    z, weight = jnp.asarray(z, margin.dtype), jnp.asarray(weight / weight.sum(), margin.dtype)
    own_quantiles = quantile(z[None], of_own(skewness, own)) * of_own(deviation, own)  # [b, nodes]
    y = (own_quantiles[:, :, None] - margin[:, None]) / deviation[:, None]
    survives = jnp.sum(jnp.where(own[:, None], 0, log_above(normal_score(y, skewness[:, None]))), axis=2)
    wrong = -jnp.expm1(survives if others is None else survives + others)
    return jnp.dot(wrong, weight, precision="highest")


def _farther_wrong(
    margin: Float[Array, "b j"], variance: Float[Array, "b j"], third: Float[Array, "b j"], own: Bool[Array, "b j"]
) -> Float[Array, "b j"]:
    """P(T_j <= T_i | x) of every rival j."""
    deviation = jnp.sqrt(variance + of_own(variance, own))
    skewness = (third - of_own(third, own)) / deviation**3
    return below(normal_score(-margin / deviation, skewness))


def _count(columns: Columns, classes: Classes) -> Float[Array, "b j"]:
    """Samples of each class without the query."""
    return jnp.where(columns.own, columns.block.left[:, None], columns.of_class(classes.count))


def _variance(columns: Columns, classes: Classes) -> Float[Array, "b j"]:
    """Unbiased tr Sigma_c of each class without the query."""
    own = (_factor(columns.block.left) * columns.block.own_variance)[:, None]
    return jnp.where(columns.own, own, columns.of_class(classes.variance))


def _factor(n: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """n / (n - 1), and 1 for a single sample."""
    return jnp.where(n > 1, n / jnp.where(n > 1, n - 1, 1), 1)


def _unbiased_square(
    n: Float[Array, " x"], square: Float[Array, " x"], variance: Float[Array, " x"], fourth: Float[Array, " x"]
) -> Float[Array, " x"]:
    """tr Sigma^2 without bias from population moments, at least 0; of fewer than four samples, the sample's."""
    factor = _factor(n)
    unbiased = trace_of_square(n, factor**2 * square, factor * variance, fourth)
    return jnp.maximum(jnp.where(n > 3, unbiased, square), 0)


def of_own(values: Float[Array, "b j"], own: Bool[Array, "b j"]) -> Float[Array, "b 1"]:
    return jnp.sum(jnp.where(own, values, 0), axis=1, keepdims=True)


def own_class(block: QueryGeometry) -> Bool[Array, "b k"]:
    return block.labels[:, None] == jnp.arange(block.along.shape[1], dtype=block.labels.dtype)[None, :]


def queries_of(geometry: PairGeometry) -> Queries:
    """Raises ValueError where they were not measured."""
    if geometry.queries is None:
        raise ValueError("predictions need the queries: measure the geometry with pair_geometry(..., queries=True)")
    return geometry.queries


def block_rows(num_classes: int) -> int:
    """Queries at once."""
    return max(1, sizes().elements // (min(num_classes, NEAREST + 1) * _NODES + num_classes))
