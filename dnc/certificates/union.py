"""The union over pairs: from terms of ordered pairs to classes to the mean over classes.

    err_i <= sum_{j != i} P(Delta_ij <= 0),      error = mean of err_i over classes,

each pair's term and each class's sum clipped at 1.
"""

import jax.numpy as jnp

from dnc.geometry.pairs import PairGeometry
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Bool, Float


@array_dataclass
class Bounds:
    """One bound at every number of shots. Ordered pairs [i, j] bound P(Delta_ij <= 0 | x in class i)."""

    bound: Float[Array, " m"]  # mean of per_class
    per_class: Float[Array, "m k"]
    per_pair: Float[Array, "m k k"]  # clipped at 1, diagonal 0
    unclipped: Float[Array, "m k k"]  # per_pair before clipping; inf where undefined
    defined: Bool[Array, "m k k"]  # the pair's bound exists; elsewhere it is 1
    valid: Bool[Array, " m"]  # the number of shots lies within the theorem's assumptions


def union_bound(
    terms: Float[Array, "m k k"],
    geometry: PairGeometry,
    defined: Bool[Array, "m k k"],
    valid: Bool[Array, " m"] | None = None,
) -> Bounds:
    """Bounds from one term for each ordered pair; undefined pairs count as 1. `valid` is True unless given."""
    unclipped, per_pair = clipped(terms, geometry, defined)
    per_class = jnp.minimum(jnp.sum(per_pair, axis=2), 1)
    return Bounds(
        bound=jnp.mean(per_class, axis=1),
        per_class=per_class,
        per_pair=per_pair,
        unclipped=unclipped,
        defined=defined,
        valid=jnp.ones_like(terms[:, 0, 0], dtype=bool) if valid is None else valid,
    )


def clipped(
    terms: Float[Array, "m k k"], geometry: PairGeometry, defined: Bool[Array, "#m k k"]
) -> tuple[Float[Array, "m k k"], Float[Array, "m k k"]]:
    """Terms with diagonal 0, undefined ones (and those beyond float32: nan) inf, and the same clipped at 1."""
    unclipped = jnp.where(own_class(geometry)[None], 0, jnp.where(defined & ~jnp.isnan(terms), terms, jnp.inf))
    return unclipped, jnp.minimum(unclipped, 1)


def own_class(geometry: PairGeometry) -> Bool[Array, "k k"]:
    """True on the diagonal."""
    return jnp.eye(geometry.counts.shape[0], dtype=bool)


def safe_sqrt(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """sqrt with gradient 0 at 0."""
    return jnp.where(values > 0, jnp.sqrt(jnp.where(values > 0, values, 1)), 0)
