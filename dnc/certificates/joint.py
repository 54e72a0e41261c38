"""The best bound on the error of one class that means and covariances of its margins allow.

With margins Delta of mean E and covariance S, P(some Delta_j <= 0) is at most the mean of any quadratic that is at
least 1 outside the positive orthant (Marshall and Olkin 1960; Vandenberghe, Boyd and Comanor 2007). For *any* positive
definite Q, with c = sqrt(diag Q), the ellipsoid {z : (z-c)^T Q^-1 (z-c) < 1} lies inside the orthant (its lowest point
in coordinate j is c_j - sqrt(Q_jj) = 0), hence

    P(some Delta_j <= 0) <= tr( Q^-1 ( S + (E-c)(E-c)^T ) ).

Minimized over Q = L L^T this is the optimum of that semidefinite problem, without a semidefinite solver; and since
every L is a certificate, stopping early costs tightness, never validity.
"""

import jax
import jax.numpy as jnp
import optax

from dnc.certificates.margin import MarginMoments, Shots, margin_covariance, margin_terms
from dnc.geometry.pairs import PairGeometry
from dnc.types import Array, Bool, Float

ITERATIONS = 60
_FLOOR = 1e-10  # smallest Var / E^2 the optimizer sees
_GAIN = 0.99  # of the union, below which a search can lead
_JITTER = 1e-5  # added to correlations; more variance is still a valid bound


def ellipsoid_bound(
    factor: Float[Array, "q q"], mean: Float[Array, " q"], root: Float[Array, "q q"]
) -> Float[Array, ""]:
    """tr(Q^-1 (S + (E-c)(E-c)^T)) for Q = L L^T, S = R R^T, c = sqrt(diag Q): valid for every L.

    `factor` is L (its upper triangle is ignored), `mean` is E, `root` is R.
    """
    lower = jnp.tril(factor)
    c = jnp.sqrt(jnp.sum(lower**2, axis=1))
    sides = jnp.concatenate([root, (mean - c)[:, None]], axis=1)
    return jnp.sum(jax.scipy.linalg.solve_triangular(lower, sides, lower=True) ** 2)


def best_factor(mean: Float[Array, " q"], root: Float[Array, "q q"]) -> Float[Array, "q q"]:
    """The L with the smallest `ellipsoid_bound` among a fixed number of L-BFGS iterates.

    Margins are in units of their standard deviations: positive means, unit variances. Starts at
    L = diag(E_j + 1/E_j) R, which for q = 1 is Cantelli's optimum.
    """
    mean, root = mean.astype(jnp.float32), root.astype(jnp.float32)  # also where float64 is the default

    def value_of(factor: Float[Array, "q q"]) -> Float[Array, ""]:
        return ellipsoid_bound(factor, mean, root)

    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=12, store_grad=True)
    optimizer = optax.lbfgs(linesearch=search)
    value_and_grad = optax.value_and_grad_from_state(value_of)

    def step(carry, _):
        factor, state, least, best = carry
        value, grad = value_and_grad(factor, state=state)
        better = value < least  # False for nan
        least, best = jnp.where(better, value, least), jnp.where(better, factor, best)
        updates, state = optimizer.update(grad, state, factor, value=value, grad=grad, value_fn=value_of)
        return (optax.apply_updates(factor, updates), state, least, best), None

    start = (mean + 1 / mean)[:, None] * root
    with jax.enable_x64(False):  # optax makes cotangents of the default float type
        carry = (start, optimizer.init(start), jnp.full_like(mean[0], jnp.inf), start)
        carry, _ = jax.lax.scan(step, carry, None, length=ITERATIONS)
    return carry[3]


def smallest_ellipsoid_bound(mean: Float[Array, " q"], correlation: Float[Array, "q q"]) -> Float[Array, ""]:
    """`ellipsoid_bound` at `best_factor`, nan where the correlations are not positive definite.

    Differentiable in the moments: at the optimum the factor's own derivative does not matter (envelope theorem).
    """
    root = jnp.linalg.cholesky(correlation)
    factor = best_factor(*jax.lax.stop_gradient((mean, root)))
    return ellipsoid_bound(factor, mean, root)


def joint_bound(
    geometry: PairGeometry,
    moments: MarginMoments,
    shots: Shots,
    per_pair: Float[Array, "m k k"],
) -> Float[Array, "m k"]:
    """Bound on the error of each class: the smaller of the ellipsoid bound and the union of `per_pair`, at most 1.

    `per_pair` holds Cantelli's terms, zero on the diagonal. A class's `neighbors` (all others, up to 64 classes) are
    taken jointly and the rest added by the union. A class with an undefined pair among them (expected margin not
    positive) gets 1: no quadratic does better. Nor is there a search where even the largest of its terms and the rest
    come to the union, but for a hundredth.
    """
    m, k, _ = per_pair.shape
    others = margin_terms(geometry).neighbors[None]
    q = others.shape[2]
    union = jnp.sum(per_pair, axis=2)
    terms = jnp.take_along_axis(per_pair, others, axis=2)
    rest = jnp.maximum(union - jnp.sum(terms, axis=2), 0)
    mean = jnp.take_along_axis(moments.mean, others, axis=2)
    covariance = margin_covariance(geometry, moments, shots)
    solvable = jnp.all(jnp.take_along_axis(moments.defined, others, axis=2), axis=2)
    mean, correlation = _standardized(mean, covariance, solvable)
    can_gain = solvable & (rest + jnp.max(terms, axis=2) < _GAIN * jnp.minimum(union, 1))
    # One problem after the other: batched triangular solves deadlock in XLA on CPU from about 32 x 32 on.
    problems = can_gain.reshape(m * k), mean.reshape(m * k, q), correlation.reshape(m * k, q, q)

    def search(problem: tuple[Array, Array, Array]) -> Array:
        return jax.lax.cond(
            problem[0], smallest_ellipsoid_bound, lambda mean, _: jnp.full_like(mean[0], jnp.inf), *problem[1:]
        )

    best = jax.lax.map(search, problems).reshape(m, k)
    joint = jnp.where(can_gain & jnp.isfinite(best), best + rest, 1)
    return jnp.minimum(jnp.minimum(joint, union), 1)


def _standardized(
    mean: Float[Array, "m k q"], covariance: Float[Array, "m k q q"], solvable: Bool[Array, "m k"]
) -> tuple[Float[Array, "m k q"], Float[Array, "m k q q"]]:
    """Margins in units of their standard deviations, slightly inflated; a harmless problem where not solvable."""
    q = mean.shape[2]
    eye = jnp.eye(q, dtype=mean.dtype)[None, None]
    mean = jnp.where(solvable[..., None], mean, 1)
    covariance = jnp.where(solvable[..., None, None], covariance, eye)
    covariance = covariance + eye * (_FLOOR * mean**2)[..., None]
    deviation = jnp.sqrt(jnp.diagonal(covariance, axis1=2, axis2=3))
    correlation = covariance / deviation[..., :, None] / deviation[..., None, :]
    return mean / deviation, correlation + _JITTER * eye
