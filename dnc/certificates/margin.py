"""Exact first and second moments of the nearest-class-center margins.

A query x of class i is compared with centroids mu^_c, each the mean of m independent shots of class c:

    Delta_ij = ||x - mu^_j||^2 - ||x - mu^_i||^2,        an error toward j is Delta_ij <= 0.

Write a = x - mu_i, e_c = mu^_c - mu_c, D_j = mu_i - mu_j. Then

    Delta_ij = d_ij^2 + 2 a.D_j + 2 a.(e_i - e_j) - 2 D_j.e_j + ||e_j||^2 - ||e_i||^2

where a, e_i and e_j are independent and centered, so mean, variance and covariances close in the class moments.
Everything here is in units of d_ij^2 (the *relative* margin Delta_ij / d_ij^2): rescaled features give the same
numbers, and nothing overflows that the class moments themselves survive.
"""

import jax
import jax.numpy as jnp

from dnc.geometry.pairs import MarginTerms, PairGeometry
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Bool, Float

Shots = Float[Array, " m"] | Float[Array, "m k"]  # of all classes alike, or of each class


@array_dataclass
class MarginMoments:
    """Mean and variance of the relative margins Delta_ij / d_ij^2, for each number of shots.

    `defined` is True off the diagonal where the two means differ and the expected margin is positive: elsewhere no
    inequality of this package applies, and a pair counts as certain error. Where the means coincide, and on
    the diagonal, mean and variance are 0.
    """

    mean: Float[Array, "m k k"]
    variance: Float[Array, "m k k"]
    defined: Bool[Array, "m k k"]


def margin_terms(geometry: PairGeometry) -> MarginTerms:
    """The geometry's margin terms. Raises ValueError for a geometry without them."""
    if geometry.margin_terms is None:
        raise ValueError('geometry has no margin terms: measure it with pair_geometry(..., overlap="auto")')
    return geometry.margin_terms


def separated(geometry: PairGeometry) -> Bool[Array, "k k"]:
    """True for pairs of different classes whose means differ."""
    distance = geometry.squared_distance
    return ~jnp.eye(distance.shape[0], dtype=bool) & (distance > 0)


def in_units_of_distance(values: Float[Array, "k k"], geometry: PairGeometry, power: int = 1) -> Float[Array, "k k"]:
    """values / d_ij^(2 power), and 0 where two means coincide or on the diagonal, with finite gradients there.

    Divides `power` times instead of once by a power, which would overflow first.
    """
    apart = separated(geometry)
    distance = jnp.where(apart, geometry.squared_distance, 1)
    values = jnp.where(apart, values, 0)
    for _ in range(power):
        values = values / distance
    return values


def by_class(shots: Shots, geometry: PairGeometry) -> Float[Array, "m k"]:
    """Shots of every class, from one number for all classes, [m], or one for each, [m, k]."""
    shots = shots[:, None] if shots.ndim == 1 else shots
    return jnp.broadcast_to(shots, (shots.shape[0], geometry.counts.shape[0]))


def margin_moments(geometry: PairGeometry, shots: Shots) -> MarginMoments:
    """Exact mean and variance of every relative margin; valid for any m >= 1 and any distribution.

        E[Delta]   = d^2 + v_j/m_j - v_i/m_i
        Var[Delta] = 4 D^T Sigma_i D + (4/m_i) tr Sigma_i^2 + (4/m_j) tr(Sigma_i Sigma_j) + (4/m_j) D^T Sigma_j D
                     - (4/m_j^2) kappa_ij + Var||e_i||^2 + Var||e_j||^2

    with Var||e_c||^2 as in `centroid_spread`. Population moments (1/n): exact for support and query drawn
    independently from the distribution that the moments describe.
    """
    terms, m = margin_terms(geometry), by_class(shots, geometry)
    own, rival = m[:, :, None], m[:, None, :]
    size = in_units_of_distance(
        jnp.broadcast_to(geometry.variance[None, :], geometry.squared_distance.shape), geometry
    )  # v_j
    mean = jnp.where(separated(geometry)[None], 1 + size[None] / rival - size.T[None] / own, 0)

    along = in_units_of_distance(geometry.directional_variance, geometry)  # W_ij
    overlap = terms.covariance_overlap
    square = in_units_of_distance(jnp.broadcast_to(jnp.diag(overlap)[:, None], overlap.shape), geometry, power=2)
    overlap = in_units_of_distance(overlap, geometry, power=2)
    skew = in_units_of_distance(terms.third_moment, geometry, power=2)
    spread = centroid_spread(geometry, shots)
    spread = jax.vmap(lambda s: in_units_of_distance(s[:, None] + s[None, :], geometry, power=2))(spread)
    variance = 4 * along[None] + 4 / own * square[None] + 4 / rival * (overlap + along.T)[None]
    variance = variance - 4 / rival**2 * skew[None] + spread
    variance = jnp.maximum(variance, 0)  # a sum with one negative term: rounding may cross zero
    return MarginMoments(mean=mean, variance=variance, defined=separated(geometry)[None] & (mean > 0))


def margin_covariance(geometry: PairGeometry, moments: MarginMoments, shots: Shots) -> Float[Array, "m k q q"]:
    """Exact covariances of class i's relative margins toward its q `neighbors`.

        Cov[Delta_j, Delta_l] = 4 D_j^T Sigma_i D_l + (4/m_i) tr(Sigma_i^2) + Var||e_i||^2        (j != l)

    in units of d_ij^2 d_il^2; the diagonal is `moments.variance`. Where `overlap` is not "exact", this
    exceeds the covariance matrix by a positive semidefinite one, so bounds made of it still hold.
    """
    terms = margin_terms(geometry)
    others = terms.neighbors
    rows = jnp.arange(others.shape[0])[:, None]
    near = separated(geometry)[rows, others]
    distance = jnp.where(near, geometry.squared_distance[rows, others], 1)
    shared = 4 / by_class(shots, geometry) * jnp.diag(terms.covariance_overlap)[None, :]
    shared = shared + centroid_spread(geometry, shots)
    both = near[:, :, None] & near[:, None, :]
    covariance = jnp.where(both[None], 4 * terms.axis_covariance[None] + shared[:, :, None, None], 0)
    covariance = covariance / distance[None, :, :, None] / distance[None, :, None, :]
    variance = jnp.take_along_axis(moments.variance, others[None], axis=2)
    return jnp.where(jnp.eye(others.shape[1], dtype=bool)[None, None], variance[..., None], covariance)


def centroid_spread(geometry: PairGeometry, shots: Shots) -> Float[Array, "m k"]:
    """Var||e_c||^2 of every class, in the features' units to the fourth power; see `centroid_spread_from_moments`."""
    square = jnp.diag(margin_terms(geometry).covariance_overlap)
    return centroid_spread_from_moments(
        geometry.variance[None, :], geometry.fourth_moment[None, :], square[None, :], by_class(shots, geometry)
    )


def centroid_spread_from_moments(
    variance: Float[Array, "*#shape"],
    fourth_moment: Float[Array, "*#shape"],
    trace_of_square: Float[Array, "*#shape"],
    shots: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """Var||e||^2 of a centroid of m shots, e = mu^ - mu.

    E||e||^4 = [M4 + (m-1)(v^2 + 2 tr Sigma^2)] / m^3 and E||e||^2 = v/m, so
    Var||e||^2 = [M4 - v^2 + 2(m-1) tr Sigma^2] / m^3.
    """
    return (jnp.maximum(fourth_moment - variance**2, 0) + 2 * (shots - 1) * trace_of_square) / shots**3
