"""Published bounds on few-shot NCC error, from CDNV and directional CDNV.

Each function takes a geometry and shots [m] and returns `Bounds`: jittable, all shots and pairs at once.
V_ij = (v_i + v_j) / d_ij^2, W_ij = u_ij^T Sigma_i u_ij / d_ij^2, Theta_ij = (M4_i + M4_j) / d_ij^4.
"""

import jax
import jax.numpy as jnp

from dnc.certificates.margin import in_units_of_distance, margin_moments, separated
from dnc.certificates.union import Bounds, clipped, own_class, safe_sqrt, union_bound
from dnc.geometry.pairs import PairGeometry
from dnc.types import Array, Float


def cdnv(geometry: PairGeometry, shots: Float[Array, " m"]) -> Bounds:
    """(1 + 1/m) V_ij, averaged over pairs: the order of the classical bound (Galanti et al. 2022).

    Up to a constant, so not a certificate, and not clipped: it is here for its shape.
    """
    apart = separated(geometry)
    terms = (1 + 1 / shots[:, None, None]) * _cdnv(geometry)[None]
    terms = jnp.where(apart[None] | own_class(geometry)[None], terms, jnp.inf)
    per_class = jnp.sum(terms, axis=2) / (terms.shape[2] - 1)
    return Bounds(
        bound=jnp.mean(per_class, axis=1),
        per_class=per_class,
        per_pair=terms,
        unclipped=terms,
        defined=jnp.broadcast_to(apart[None], terms.shape),
        valid=jnp.ones_like(shots, dtype=bool),
    )


def luthra2025(geometry: PairGeometry, shots: Float[Array, " m"]) -> Bounds:
    """The bound of Luthra et al. (2025), see `luthra2025_value`; any m >= 1.

    V here carries the factor 1/2 of that paper: (v_i + v_j) / (2 d_ij^2). The constant a is chosen once per task: for
    `bound` and `per_class` on the means over all pairs, for `per_pair` on each two-class subtask, so that the mean of
    [i, j] and [j, i] is the published bound of the subtask, and `bound` that of the whole task, up to clipping.
    """
    k = geometry.counts.shape[0]
    apart, m = separated(geometry)[None], shots[:, None, None]
    w, v = _directional(geometry)[None], _cdnv(geometry)[None] / 2
    noise = _noise(v, safe_sqrt(v), m)

    pair_a = _best_constant((w + w.mT) / 2, noise, m)
    unclipped, per_pair = clipped(_at_constant(w, noise, pair_a, m), geometry, apart)

    w_class, noise_class = jnp.sum(w, axis=2), jnp.sum(noise, axis=2)  # k - 1 times the means
    task_a = _best_constant(jnp.mean(w_class, axis=1), jnp.mean(noise_class, axis=1), shots)
    per_class = _at_constant(w_class, noise_class, task_a[:, None], shots[:, None])
    undefined = jnp.any(~apart & ~own_class(geometry)[None], axis=2)
    per_class = jnp.where(undefined, 1, jnp.minimum(per_class, 1))
    return Bounds(
        bound=jnp.mean(per_class, axis=1),
        per_class=per_class,
        per_pair=per_pair,
        unclipped=unclipped,
        defined=jnp.broadcast_to(apart, (shots.shape[0], k, k)),
        valid=jnp.ones_like(shots, dtype=bool),
    )


def luthra2025_value(
    w: Float[Array, "*shape"],
    v: Float[Array, "*shape"],
    v_sqrt: Float[Array, "*shape"],
    shots: Float[Array, "*shape"],
    num_classes: int,
) -> Float[Array, "*shape"]:
    """Luthra et al. (2025), from means over pairs: directional CDNV `w`, CDNV `v` (with the 1/2), `v_sqrt`.

        (k-1) min_{a >= 5} [ (1/2 - 2/a - 2^{3/2}/(a m))^-2 W + (a/4) ( (2/sqrt m)(V^s + V) + V/m ) ]

    V^s is the mean of sqrt(V_ij) (published code takes the square root of the mean). Not clipped.
    """
    noise = _noise(v, v_sqrt, shots)
    return (num_classes - 1) * _at_constant(w, noise, _best_constant(w, noise, shots), shots)


def luthra2026(geometry: PairGeometry, shots: Float[Array, " m"]) -> Bounds:
    """Luthra, Salunkhe and Galanti (2026), Theorem 4.1, stated for m >= 10.

    [4 W + (sqrt A_T + sqrt A_S + sqrt A_Q)^2] / (1 + (v_j - v_i)/(m d^2))^2 with
    A_T = (4/m)(V^2 + V/4),  A_S = V/m,  A_Q = (Theta + 2(m-1) V^2)/m^3.
    """
    m = shots[:, None, None]
    w, v = _directional(geometry)[None], _cdnv(geometry)[None]
    fourth = geometry.fourth_moment
    theta = in_units_of_distance(fourth[:, None] + fourth[None, :], geometry, power=2)[None]
    a_t, a_s, a_q = 4 / m * (v**2 + v / 4), v / m, (theta + 2 * (m - 1) * v**2) / m**3
    noise = sum((safe_sqrt(a) for a in (a_t, a_s, a_q)), start=jnp.zeros_like(a_t)) ** 2
    moments = margin_moments(geometry, shots)
    terms = (4 * w + noise) / jnp.where(moments.defined, moments.mean, 1) ** 2
    return union_bound(terms, geometry, moments.defined, valid=shots >= 10)


def luthra2026_limit(geometry: PairGeometry, shots: Float[Array, " m"]) -> Bounds:
    """4 W_ij: what `luthra2026` tends to as m grows. Bounds the error of infinitely many shots, not of m."""
    defined = jnp.broadcast_to(separated(geometry)[None], (shots.shape[0], *geometry.squared_distance.shape))
    terms = jnp.broadcast_to(4 * _directional(geometry)[None], defined.shape)
    return union_bound(terms, geometry, defined)


def _noise(
    v: Float[Array, "*#shape"], v_sqrt: Float[Array, "*#shape"], shots: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """(2/sqrt m)(V^s + V) + V/m."""
    return 2 / jnp.sqrt(shots) * (v_sqrt + v) + v / shots


def _best_constant(
    w: Float[Array, "*#shape"], noise: Float[Array, "*#shape"], shots: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """The a >= 5 with 1/2 - 2/a - 2^{3/2}/(a m) > 0 that minimizes the bound, which is convex in a there.

    With b = 2 + 2^{3/2}/m, y = a - 2b and R = 64 W b / noise, stationarity reads y^3 = R (y + 2b). Newton's method
    from above the only positive root converges monotonically. Any a gives a valid bound, so no gradient flows here.
    """
    w, noise = jax.lax.stop_gradient((w, noise))
    b = 2 + 2**1.5 / shots
    r = 64 * b * w / jnp.where(noise > 0, noise, 1)
    y = jnp.maximum(jnp.sqrt(2 * r), jnp.cbrt(4 * b * r))
    for _ in range(8):
        slope = 3 * y**2 - r
        y = y - jnp.where(slope > 0, y**3 - r * (y + 2 * b), 0) / jnp.where(slope > 0, slope, 1)
    return jnp.maximum(jnp.maximum(y, 1e-3 * b) + 2 * b, 5)  # W = 0 would put a on the pole at 2b


def _at_constant(
    w: Float[Array, "*#shape"],
    noise: Float[Array, "*#shape"],
    a: Float[Array, "*#shape"],
    shots: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    return w / (0.5 - (2 + 2**1.5 / shots) / a) ** 2 + a / 4 * noise


def _cdnv(geometry: PairGeometry) -> Float[Array, "k k"]:
    v = geometry.variance
    return in_units_of_distance(v[:, None] + v[None, :], geometry)


def _directional(geometry: PairGeometry) -> Float[Array, "k k"]:
    return in_units_of_distance(geometry.directional_variance, geometry)
