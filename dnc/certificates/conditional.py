"""The certificate of each query, averaged: only the centroids are left to chance.

Given the query x, the distances T_c = ||x - mu^_c||^2 to the centroids of m shots are independent of each other. With
b = x - mu_c and e = mu^_c - mu_c, T_c = ||b||^2 - 2 b.e + ||e||^2, so that

    E[T_c | x]   = ||b||^2 + v_c / m
    Var[T_c | x] = (4/m) b^T Sigma_c b - (4/m^2) b.t_c + Var||e||^2      (see `margin.centroid_spread_from_moments`)

and the query of class i is classified correctly when T_i < T_j for all rivals j. Cantelli's inequality bounds each
P(T_j <= T_i | x), and the union over rivals

    P(error | x) <= sum_j (N_i + N_j) / (N_i + N_j + (E_j - E_i)^2),      E_c = E[T_c | x], N_c = Var[T_c | x].

Independence gives another bound, which counts the noise of the query's own centroid once: for any threshold t between,

    P(error | x) <= 1 - P(T_i < t) prod_j P(T_j > t),                     each factor by Cantelli's inequality.

The smallest of these, at most 1 **for each query**, averaged over queries, is the certificate. It is never above
`exact_cantelli`, up to what leaving the query out of its own class changes: the best quadratic for each query is at
least as good as one for all, and a sum clipped for each query is at most one clipped after. And it is tight where the
margin's moments alone cannot be: with many shots it tends to the fraction of queries that are nearer to another class
mean than to their own.
"""

import jax
import jax.numpy as jnp

from dnc.certificates.margin import Shots, by_class, centroid_spread_from_moments, margin_terms, separated
from dnc.certificates.union import Bounds, own_class, safe_sqrt
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.queries import Pass, look
from dnc.geometry.query_geometry import QueryGeometry
from dnc.geometry.references import ROUNDING
from dnc.geometry.sizes import sizes
from dnc.types import Array, Bool, Float

_THRESHOLDS = 9  # evenly between E_i and the nearest rival's E_j; any threshold gives a valid bound


def exact_conditional(geometry: PairGeometry, shots: Shots) -> Bounds:
    """Cantelli's inequality for each query given the query, averaged over queries; any m >= 1.

    Exact for a query drawn from the sample and shots drawn independently from the sample without the query. Needs a
    geometry with `queries`. Pairs are bounded on their own, so a class's bound is at most their sum. A tie is an error:
    distances count as equal where float32 cannot tell them apart, and no noise is below what rounds in it. Where the
    queries know b^T Sigma_c b only approximately, an upper bound of it takes its place, and this is one of the above.
    """
    assert geometry.queries is not None  # `certificate` checks
    (bounds,) = look(geometry.queries, conditional_pass(geometry, shots))
    return bounds


def conditional_pass(geometry: PairGeometry, shots: Shots) -> Pass:
    """The same as a pass over the queries."""
    by_shots, k = by_class(shots, geometry), geometry.counts.shape[0]

    def step(total: tuple[Array, Array], block: QueryGeometry) -> tuple[tuple[Array, Array], None]:
        own = block.labels[:, None] == jnp.arange(k, dtype=block.labels.dtype)[None, :]

        def at(total: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
            mean, noise = _distance_moments(geometry, block, own, by_shots[index])
            pairs = _pair_terms(mean, noise, own)
            error = jnp.minimum(jnp.sum(pairs, axis=1), _threshold_bound(mean, noise, own))
            per_class, per_pair = total
            per_class = per_class.at[index, block.labels].add(block.weight * error)
            return (per_class, per_pair.at[index, block.labels].add(block.weight[:, None] * pairs)), None

        return jax.lax.scan(at, total, jnp.arange(len(by_shots)))[0], None

    def finish(total: tuple[Array, Array], _: None) -> Bounds:
        per_class, per_pair = (jnp.minimum(values, 1) for values in total)
        coincide = ~separated(geometry) & ~own_class(geometry)
        per_class = jnp.where(jnp.any(coincide, axis=1)[None], 1, per_class)
        per_pair = jnp.where(coincide[None], 1, per_pair)
        return Bounds(
            bound=jnp.mean(per_class, axis=1),
            per_class=per_class,
            per_pair=per_pair,
            unclipped=per_pair,
            defined=jnp.broadcast_to(separated(geometry)[None], per_pair.shape),
            valid=jnp.ones(shots.shape[0], dtype=bool),
        )

    zero = jnp.zeros(by_shots.shape), jnp.zeros((*by_shots.shape, k))
    return Pass(zero, step, finish, rows=max(1, sizes().elements // (2 * k)))


def _distance_moments(
    geometry: PairGeometry, queries: QueryGeometry, own: Bool[Array, "n k"], m: Float[Array, " k"]
) -> tuple[Float[Array, "n k"], Float[Array, "n k"]]:
    """E[T_c | x] and Var[T_c | x] for every query x and class c, each rounded against the query."""
    square = jnp.diag(margin_terms(geometry).covariance_overlap)
    spread = centroid_spread_from_moments(geometry.variance, geometry.fourth_moment, square, m)
    own_moments = queries.own_variance, queries.own_fourth, queries.own_square
    own_spread = centroid_spread_from_moments(*own_moments, m[queries.labels])
    variance = jnp.where(own, queries.own_variance[:, None], geometry.variance[None, :])
    fourth = jnp.where(own, queries.own_fourth[:, None], geometry.fourth_moment[None, :])
    spread, m = jnp.where(own, own_spread[:, None], spread[None, :]), m[None, :]
    along, skew = 4 / m * (queries.along if queries.most is None else queries.most), 4 / m**2 * queries.skew
    noise = along - skew + spread
    mean = queries.squared_distance + variance / m
    rounding = ROUNDING * (mean + jnp.sqrt(mean) * queries.length[:, None] / 4)  # of distances; of features
    size = along + jnp.abs(skew) + spread + fourth / m**3
    return jnp.where(own, mean + rounding, mean - rounding), jnp.maximum(noise, 0) + ROUNDING * size


def _pair_terms(mean: Float[Array, "n k"], noise: Float[Array, "n k"], own: Bool[Array, "n k"]) -> Float[Array, "n k"]:
    """Cantelli's bound on P(T_j <= T_i | x), and 0 for the query's own class i."""
    return jnp.where(own, 0, _cantelli(mean - _of_own(mean, own), noise + _of_own(noise, own)))


def _threshold_bound(
    mean: Float[Array, "n k"], noise: Float[Array, "n k"], own: Bool[Array, "n k"]
) -> Float[Array, " n"]:
    """1 - P(T_i < t) prod_j P(T_j > t), at the best of a few thresholds t."""
    near = _of_own(mean, own)
    far = jnp.min(jnp.where(own, jnp.inf, mean), axis=1, keepdims=True)

    def at(fraction: Float[Array, ""]) -> Float[Array, " n"]:
        gap = mean - (near + fraction * (far - near))
        return 1 - jnp.prod(1 - _cantelli(jnp.where(own, -gap, gap), noise), axis=1)

    fractions = (1 + jnp.arange(_THRESHOLDS, dtype=mean.dtype)) / (_THRESHOLDS + 1)
    return jnp.min(jax.lax.map(at, fractions), axis=0)


def _cantelli(margin: Float[Array, "n k"], variance: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """variance / (variance + margin^2), and 1 unless the margin is positive."""
    deviation = safe_sqrt(variance)  # a ratio first: the square of a margin would overflow first
    ratio = margin / jnp.where(deviation > 0, deviation, 1)
    return jnp.where(margin > 0, jnp.where(deviation > 0, 1 / (1 + ratio**2), 0), 1)


def _of_own(values: Float[Array, "n k"], own: Bool[Array, "n k"]) -> Float[Array, "n 1"]:
    return jnp.sum(jnp.where(own, values, 0), axis=1, keepdims=True)
