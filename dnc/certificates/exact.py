"""Bounds from the margins' exact moments: valid for every m >= 1 and every distribution.

Each function takes a geometry and shots [m], or [m, k] where classes differ, and returns `Bounds`: jittable, all shots
and pairs at once.
"""

import dataclasses

import jax.numpy as jnp

from dnc.certificates.joint import joint_bound
from dnc.certificates.margin import Shots, margin_moments
from dnc.certificates.union import Bounds, union_bound
from dnc.geometry.pairs import PairGeometry


def exact_chebyshev(geometry: PairGeometry, shots: Shots) -> Bounds:
    """Var / E^2 with the margin's exact moments; any m >= 1."""
    moments = margin_moments(geometry, shots)
    terms = moments.variance / jnp.where(moments.defined, moments.mean, 1) ** 2
    return union_bound(terms, geometry, moments.defined)


def exact_cantelli(geometry: PairGeometry, shots: Shots) -> Bounds:
    """Var / (Var + E^2), Cantelli's inequality with the margin's exact moments; any m >= 1.

    Never above 1 and never above `exact_chebyshev`.
    """
    moments = margin_moments(geometry, shots)
    squared_mean = jnp.where(moments.defined, moments.mean, 1) ** 2
    terms = moments.variance / (moments.variance + squared_mean)
    return union_bound(terms, geometry, moments.defined)


def exact_joint(geometry: PairGeometry, shots: Shots) -> Bounds:
    """The joint law of a class's k - 1 margins instead of the union over pairs, see `dnc.certificates.joint`.

    Never above `exact_cantelli`, and equal to it for two classes. Pairs are `exact_cantelli`'s.
    """
    pairs = exact_cantelli(geometry, shots)
    if geometry.counts.shape[0] == 2:
        return pairs
    per_class = joint_bound(geometry, margin_moments(geometry, shots), shots, pairs.per_pair)
    return dataclasses.replace(pairs, bound=jnp.mean(per_class, axis=1), per_class=per_class)
