"""The few-shot error in closed form: of every query, class and pair, for any number of shots, also beyond the samples.

Given the query x, the squared distances T_c = ||x - mu^_c||^2 to the centroids of m_c shots are independent of each
other, with known mean E_c, variance N_c and third cumulant K_c (see `distance_cumulants`). A nearest-center rule is
right where the query's own class i is nearest:

    P(right | x) = E_t [prod_{j != i} P(T_j > t)],   t distributed as T_i,

by Gauss-Hermite quadrature over t, each T_c taken as the variable with those cumulants (`dnc.few_shot.skewed`). Of two
classes alone, P(T_j <= T_i | x) is that of the margin T_j - T_i, whose cumulants are sums of both. With one, two or
three shots of each class, P(T_j > t) are shares of centroids of samples instead (`dnc.geometry.references`).

It estimates the error on new data, as the measured error does, without drawing anything: moments are corrected for the
number of samples n_c that they come from. With v_c, Sigma_c unbiased and the query left out of its own class,

    E_c = ||x - mu_c||^2 + v_c (1/m_c - 1/n_c),      b^T Sigma_c b - tr Sigma_c^2 / n_c in place of b^T Sigma_c b,

and the margins E_c - E_i over queries x of class i, whose variance is larger by 4 [tr Sigma_i^2 / (n_i - 1) +
tr(Sigma_i Sigma_c) / n_c], are drawn to their mean by sqrt(1 - that / variance).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import roots_hermitenorm

from dnc.certificates.margin import margin_terms
from dnc.compiling import jit_quickly
from dnc.few_shot.skewed import normal_score, quantile
from dnc.geometry.pairs import PairGeometry, trace_of_square
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.queries import QueryGeometry
from dnc.geometry.references import FEWEST, ROUNDING
from dnc.geometry.shots import check_allocations, check_shots, shots_by_class
from dnc.types import Array, Bool, Float, Int

_NODES = 31
_FEW = 30  # samples of a class; from fewer, third cumulants are mostly noise, and taken to be smaller
_SURE = 0.1  # share of a sample's variance along a query's direction that is never taken for noise
_BLOCK_ELEMENTS = 2**21  # query x class x node at once


@dataclasses.dataclass(frozen=True)
class PredictedError:
    """Predicted few-shot NCC error: what `FewShotError` measures, for the same rule and classes.

    Attributes:
      shots: of each prediction: a number for all classes, or one of each class.
      mean: mean over classes.
      per_class: P(error | x in class i).
      per_pair: P(centroid j at least as near as centroid i | x in class i), diagonal 0.
    """

    shots: tuple[Any, ...]
    mean: Float[Array, " m"]
    per_class: Float[Array, "m k"]
    per_pair: Float[Array, "m k k"]


@array_dataclass
class _Classes:
    """What all queries share: unbiased class moments, and how margins scatter over the queries of a class."""

    count: Float[Array, " k"]
    variance: Float[Array, " k"]
    square: Float[Array, " k"]
    fourth: Float[Array, " k"]
    cube: Float[Array, " k"]
    margin: Float[Array, "k k"]  # [i, c]: mean over queries of class i of E_c - E_i at infinitely many shots
    kept: Float[Array, "k k"]  # [i, c]: factor on what is beyond that mean


def predicted_error(
    geometry: PairGeometry, shots: Sequence[Any] | Mapping[str, int], classes: Sequence[str] | None = None
) -> PredictedError:
    """Predicted few-shot error for all shots, classes and pairs at once.

    An entry of `shots` is one number for all classes (inf: the limit) or a sequence of one for each. Compiled once for
    each shape of the queries and number of entries.

    `classes` names them, for shots given as a dict. Raises ValueError for shots below 1, and for a geometry without
    `queries` or with corrected moments.
    """
    k = geometry.counts.shape[0]
    if not isinstance(shots, Mapping) and not np.iterable(shots):
        check_shots(shots)  # which says what to write
    entries: list[Any] = [shots] if isinstance(shots, Mapping) else list(shots)
    unlimited = [isinstance(entry, float) and math.isinf(entry) for entry in entries]
    finite = check_allocations([1 if inf else entry for entry, inf in zip(entries, unlimited, strict=True)], k, classes)
    by_class = np.where(np.array(unlimited)[:, None], np.inf, shots_by_class(finite, k))
    per_class, per_pair = _predict(geometry, jnp.asarray(by_class, jnp.float32))
    sizes = tuple(math.inf if inf else size for size, inf in zip(finite, unlimited, strict=True))
    return PredictedError(sizes, jnp.mean(per_class, axis=1), per_class, per_pair)


def predict(
    geometry: PairGeometry, shots: Float[Array, "m k"], few: bool = True
) -> tuple[Float[Array, "m k"], Float[Array, "m k k"]]:
    """Predicted errors of classes and of ordered pairs, for shots of every class (inf: their limit). Jittable.

    Without `few`, also one to three shots are predicted from cumulants alone, and the result has derivatives.
    """
    queries, classes = _queries(geometry), _shared(geometry)
    k = geometry.counts.shape[0]

    def of_block(block: QueryGeometry) -> tuple[Array, Array]:
        own = _own_class(block)
        member = jnp.where(own, block.weight[:, None], 0)

        def at(m: Float[Array, " k"]) -> tuple[Array, Array]:
            error, pairs = _of_queries(block, classes, own, m, few)
            return (
                jnp.einsum("bk,b->k", member, error, precision="highest"),
                jnp.einsum("bi,bj->ij", member, pairs, precision="highest"),
            )

        return jax.lax.map(at, shots)

    per_class, per_pair = jax.tree.map(lambda sums: jnp.sum(sums, axis=0), _map_blocks(of_block, queries, k))
    return jnp.clip(per_class, 0, 1), jnp.clip(per_pair, 0, 1)


_predict = jit_quickly(predict)


@jit_quickly
def predict_queries(
    geometry: PairGeometry, shots: Float[Array, " k"]
) -> tuple[Float[Array, " n"], Int[Array, " n"], Float[Array, " n"]]:
    """Of every query, for these shots of each class: P(error | x), the class j that it is most often nearer to than to
    its own, i, and P(T_j <= T_i | x).
    """
    queries, classes = _queries(geometry), _shared(geometry)
    k = geometry.counts.shape[0]

    def of_block(block: QueryGeometry) -> tuple[Array, Array, Array]:
        error, pairs = _of_queries(block, classes, _own_class(block), shots)
        return error, jnp.argmax(pairs, axis=1), jnp.max(pairs, axis=1)

    n = queries.labels.shape[0]
    error, rival, share = jax.tree.map(lambda a: a.reshape(-1)[:n], _map_blocks(of_block, queries, k))
    return jnp.clip(error, 0, 1), rival, jnp.clip(share, 0, 1)


def _of_queries(
    block: QueryGeometry, classes: _Classes, own: Bool[Array, "b k"], m: Float[Array, " k"], few: bool = True
) -> tuple[Float[Array, " b"], Float[Array, "b k"]]:
    """P(error | x), and P(T_j <= T_i | x) with 0 for the query's own class i."""
    mean, variance, third = distance_cumulants(block, classes, own, m)
    error, pairs = _nearest_wrong(mean, variance, third, own), _farther_wrong(mean, variance, third, own)
    for size in range(1, FEWEST + 1) if few else ():
        right, farther = block.references.right[:, size - 1], block.references.farther[:, :, size - 1]
        known = jnp.all(m == size) & ~jnp.isnan(right)
        error = jnp.where(known, 1 - right, error)
        pairs = jnp.where(known[:, None], 1 - farther, pairs)
    return error, jnp.where(own, 0, pairs)


def distance_cumulants(
    block: QueryGeometry, classes: _Classes, own: Bool[Array, "b k"], m: Float[Array, " k"]
) -> tuple[Float[Array, "b k"], Float[Array, "b k"], Float[Array, "b k"]]:
    """Mean (less that of T_i), variance and third cumulant of T_c given the query, corrected for the sample's size.

    With b = x - mu_c, a = z - mu_c and s = 1/m,

        N = 4 s b^T Sigma b - 4 s^2 b.t + (M4 - v^2) s^3 + 2 (s^2 - s^3) tr Sigma^2,
        K = -8 s^2 E[(b.a)^3] + 12 s^3 (E[(b.a)^2 ||a||^2] - v b^T Sigma b)
            + 24 (s^2 - s^3) ||Sigma b||^2 + 8 s^3 tr Sigma^3

    up to terms of K of order s^3 that vanish for symmetric distributions. K counts n^2 / (n^2 + 30^2): third moments of
    few samples are mostly noise.
    """
    n, v = _count(block, classes, own), _variance(block, classes, own)
    s, more = 1 / m[None], _factor(n)
    own_square = _unbiased_square(block.left, block.own_square, block.own_variance, block.own_fourth)
    square = jnp.where(own, own_square[:, None], classes.square[None])
    fourth = jnp.where(own, block.own_fourth[:, None], classes.fourth[None])
    distance = block.squared_distance
    rounding = ROUNDING * (distance + v)
    along = jnp.maximum(more * block.along - square / n, _SURE * more * block.along + rounding * distance)
    noise = v * along / jnp.maximum(n - 1, 1)
    smeared = jnp.maximum((more**2 * block.smeared - noise) / more, along**2 / jnp.maximum(distance, rounding))
    spread = jnp.maximum(fourth - v**2, 0) * s**3 + 2 * (s**2 - s**3) * square
    variance = jnp.maximum(4 * s * along - 4 * s**2 * block.skew + spread, 0) + rounding**2
    third = 12 * s**3 * (block.references.mixed - v * block.along) - 8 * s**2 * block.references.cubic
    third = third + 24 * (s**2 - s**3) * smeared + 8 * s**3 * classes.cube[None]
    third = third * n**2 / (n**2 + _FEW**2)
    settled = classes.margin[block.labels]
    margin = settled + classes.kept[block.labels] * (_margins(block, classes, own) - settled)
    margin = margin + s * v - _of_own(s * v, own)
    return jnp.where(own, 0, margin), variance, third


def _shared(geometry: PairGeometry) -> _Classes:
    """Class moments of 1/(n - 1), and the mean and the signal's share of the margins of each class's queries."""
    queries, terms = _queries(geometry), margin_terms(geometry)
    if geometry.ddof or geometry.trace_of_cube is None:
        raise ValueError("predictions start from population moments: give the geometry as it was measured")
    n, k = geometry.counts, geometry.counts.shape[0]
    more = _factor(n)
    square = _unbiased_square(n, jnp.diag(terms.covariance_overlap), geometry.variance, geometry.fourth_moment)
    classes = _Classes(
        count=n,
        variance=more * geometry.variance,
        square=square,
        fourth=geometry.fourth_moment,
        cube=geometry.trace_of_cube,
        margin=jnp.zeros((k, k)),
        kept=jnp.ones((k, k)),
    )

    def of_block(block: QueryGeometry) -> tuple[Array, Array]:
        own = _own_class(block)
        member = jnp.where(own, block.weight[:, None], 0)
        beyond = _margins(block, classes, own) - geometry.squared_distance[block.labels]
        first, second = (jnp.einsum("bi,bj->ij", member, beyond**power, precision="highest") for power in (1, 2))
        return first, second

    first, second = jax.tree.map(lambda sums: jnp.sum(sums, axis=0), _map_blocks(of_block, queries, k))
    scatter = more[:, None] * jnp.maximum(second - first**2, 0)
    overlap = more[:, None] * more[None, :] * terms.covariance_overlap / n[None, :]
    noise = 4 * (square / jnp.maximum(n - 1, 1))[:, None] + 4 * overlap
    kept = jnp.sqrt(jnp.maximum(1 - noise / jnp.where(scatter > 0, scatter, 1), 0))
    margin = jnp.maximum(geometry.squared_distance + first, 0)  # below, the means cannot be told apart: guessing
    return dataclasses.replace(classes, margin=margin, kept=jnp.where(scatter > 0, kept, 1))


def _margins(block: QueryGeometry, classes: _Classes, own: Bool[Array, "b k"]) -> Float[Array, "b k"]:
    """E_c - E_i at infinitely many shots, for the query's own class i."""
    far = block.squared_distance - _variance(block, classes, own) / _count(block, classes, own)
    return far - _of_own(far, own)


def _nearest_wrong(
    margin: Float[Array, "b k"], variance: Float[Array, "b k"], third: Float[Array, "b k"], own: Bool[Array, "b k"]
) -> Float[Array, " b"]:
    """P(some T_j <= T_i | x), with means T_c relative to that of T_i."""
    deviation = jnp.sqrt(variance)
    skewness = third / deviation**3
    z, weight = roots_hermitenorm(_NODES)
    z, weight = jnp.asarray(z, margin.dtype), jnp.asarray(weight / weight.sum(), margin.dtype)
    own_quantiles = quantile(z[None], _of_own(skewness, own)) * _of_own(deviation, own)  # [b, nodes]
    y = (own_quantiles[:, :, None] - margin[:, None]) / deviation[:, None]
    survives = jax.scipy.special.log_ndtr(-normal_score(y, skewness[:, None]))
    wrong = -jnp.expm1(jnp.sum(jnp.where(own[:, None], 0, survives), axis=2))
    return jnp.dot(wrong, weight, precision="highest")


def _farther_wrong(
    margin: Float[Array, "b k"], variance: Float[Array, "b k"], third: Float[Array, "b k"], own: Bool[Array, "b k"]
) -> Float[Array, "b k"]:
    """P(T_j <= T_i | x) of every rival j."""
    deviation = jnp.sqrt(variance + _of_own(variance, own))
    skewness = (third - _of_own(third, own)) / deviation**3
    return jax.scipy.special.ndtr(normal_score(-margin / deviation, skewness))


def _count(block: QueryGeometry, classes: _Classes, own: Bool[Array, "b k"]) -> Float[Array, "b k"]:
    """Samples of each class without the query."""
    return jnp.where(own, block.left[:, None], classes.count[None])


def _variance(block: QueryGeometry, classes: _Classes, own: Bool[Array, "b k"]) -> Float[Array, "b k"]:
    """Unbiased tr Sigma_c of each class without the query."""
    return jnp.where(own, (_factor(block.left) * block.own_variance)[:, None], classes.variance[None])


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


def _of_own(values: Float[Array, "b k"], own: Bool[Array, "b k"]) -> Float[Array, "b 1"]:
    return jnp.sum(jnp.where(own, values, 0), axis=1, keepdims=True)


def _own_class(block: QueryGeometry) -> Bool[Array, "b k"]:
    return block.labels[:, None] == jnp.arange(block.along.shape[1], dtype=block.labels.dtype)[None, :]


def _queries(geometry: PairGeometry) -> QueryGeometry:
    if geometry.queries is None:
        raise ValueError("predictions need the queries: measure the geometry with pair_geometry(..., queries=True)")
    return geometry.queries


def _map_blocks(function: Callable[[QueryGeometry], Any], queries: QueryGeometry, num_classes: int) -> Any:
    """`function` of blocks of queries, stacked; padding has weight 0."""
    n = queries.labels.shape[0]
    size = max(1, min(n, _BLOCK_ELEMENTS // (num_classes * _NODES)))
    padded = jax.tree.map(lambda a: jnp.pad(a, [(0, -n % size)] + [(0, 0)] * (a.ndim - 1), mode="edge"), queries)
    padded = dataclasses.replace(padded, weight=jnp.pad(queries.weight, (0, -n % size)))
    return jax.lax.map(function, jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), padded))
