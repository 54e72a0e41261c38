"""Decision axes of several labelings of one sample: their cosines, what bounds them, and mutual interference."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dnc.compiling import jit_quickly
from dnc.geometry.inputs import as_codes, as_numbers, converted, each
from dnc.geometry.moments import RESOLUTION
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int

_AXES_AT_ONCE = 128  # memory is n times this


@array_dataclass
class DecisionAxes:
    """Decision axes of all p = K(K-1)/2 unordered class pairs of a labeling, in the order of `axis_pairs`."""

    unit: Float[Array, "p d"]  # u = (mu_j - mu_i) / d_ij, nan where the means coincide
    distance: Float[Array, " p"]  # d_ij
    variance: Float[Array, " p"]  # (1/K) sum over all K classes of u^T Sigma_c u
    pair_variance: Float[Array, " p"]  # (u^T Sigma_i u + u^T Sigma_j u) / 2
    rounding: Float[Array, " p"]  # of u: what float32 leaves uncertain in the class means, over d_ij

    @property
    def num_classes(self) -> int:
        return (1 + math.isqrt(1 + 8 * self.distance.shape[0])) // 2


def axis_pairs(num_classes: int) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """First and second class of each axis: (0, 1), (0, 2), ..., (K-2, K-1).

    Examples:
        >>> [classes.tolist() for classes in axis_pairs(3)]
        [[0, 0, 1], [1, 2, 2]]
    """
    first, second = np.triu_indices(num_classes, 1)
    return first.astype(np.int32), second.astype(np.int32)


@converted(features=as_numbers, labels=as_codes)
@functools.partial(jit_quickly, static_argnames="num_classes")
def decision_axes(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int) -> DecisionAxes:
    """Axes of one labeling and the within-class variance along them (1/n_c moments).

    Pure and jitted, `num_classes` static; every class must have samples.
    """
    first, second = axis_pairs(num_classes)
    residuals, means, member = _centered(jnp.asarray(features), jnp.asarray(labels), num_classes)
    unit, distance, rounding = _unit_axes(means)

    def class_variances(u: Float[Array, " d"]) -> Float[Array, " k"]:
        along = jnp.dot(residuals, u, precision="highest")
        return _class_means(along**2, member)

    variances = jax.lax.map(class_variances, unit, batch_size=_AXES_AT_ONCE)  # [p, K]: u^T Sigma_c u
    axis = np.arange(len(first))
    pair_variance = (variances[axis, first] + variances[axis, second]) / 2
    return DecisionAxes(unit, distance, variances.mean(axis=1), pair_variance, rounding)


@jax.jit
def cosines(first: DecisionAxes, second: DecisionAxes) -> Float[Array, "p q"]:
    """|u_1 . u_2| for all axes of the first labeling x all axes of the second."""
    return jnp.abs(jnp.dot(first.unit, second.unit.T, precision="highest"))


@jax.jit
def orthogonality_bound(first: DecisionAxes, second: DecisionAxes) -> Float[Array, "p q"]:
    """Upper bound of |u_1 . u_2| for independent, balanced labelings with K_1 and K_2 classes.

        min( (d_1 / d_2) sqrt(2 K_2 W_1), (d_2 / d_1) sqrt(2 K_1 W_2) ),   W = (1/K) sum_c u^T Sigma_c u / d^2

    with the sum over **all** K classes of the labeling: r = u_1.z - E[u_1.z | y_1] has variance d_1^2 W_1, and
    u_1.(mu_k - mu_k') = Cov(r, K_2 (1_k - 1_k')), to which Cauchy-Schwarz applies. For K = 2 this is Proposition 4.2
    of Luthra et al. (2026).
    """
    return _bound(first, second, first.variance, second.variance)


@jax.jit
def pair_orthogonality_bound(first: DecisionAxes, second: DecisionAxes) -> Float[Array, "p q"]:
    """The same expression with W pooled over only the pair's two classes, as published code computes it.

    Not a valid bound when a labeling has more than two classes; for comparison only.
    """
    return _bound(first, second, first.pair_variance, second.pair_variance)


@converted(features=as_numbers, labels=as_codes, other_labels=each(as_codes))
@functools.partial(jit_quickly, static_argnames=("num_classes", "other_num_classes"))
def interference_budget(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    other_labels: Sequence[Int[ArrayLike, " n"]],
    other_num_classes: tuple[int, ...],
) -> Float[Array, "p t"]:
    """Share of each axis's within-class variance that each other labeling explains.

        share[u, t] = sum_k (n_k / n) E[r | y_t = k]^2 / Var(r),     r = u.z - E[u.z | y]

    Each share lies in [0, 1]. For jointly independent labelings the centered indicator functions are orthogonal, so
    by Bessel's inequality the shares of an axis over all other tasks add up to at most 1. An axis without
    within-class variance has nothing to share: 0. Pure and jitted, `num_classes` and `other_num_classes` static.
    """
    residuals, means, _ = _centered(jnp.asarray(features), jnp.asarray(labels), num_classes)
    unit, _, _ = _unit_axes(means)
    size = jnp.mean(jnp.sum(residuals**2, axis=1)) + jnp.max(jnp.sum(means**2, axis=1))
    members = [
        jax.nn.one_hot(jnp.asarray(y), k, dtype=jnp.float32)
        for y, k in zip(other_labels, other_num_classes, strict=True)
    ]

    def shares(u: Float[Array, " d"]) -> Float[Array, " t"]:
        r = jnp.dot(residuals, u, precision="highest")
        total = jnp.mean(r**2)
        explained = [jnp.sum(member.mean(axis=0) * _class_means(r, member) ** 2) for member in members]
        varies = total > RESOLUTION**2 * size
        return jnp.where(varies, jnp.stack(explained) / jnp.where(varies, total, 1), jnp.where(total > 0, 0, total))

    return jax.lax.map(shares, unit, batch_size=_AXES_AT_ONCE)


def _centered(
    features: Float[Array, "n d"], labels: Int[Array, " n"], num_classes: int
) -> tuple[Float[Array, "n d"], Float[Array, "k d"], Float[Array, "n k"]]:
    """Residuals of the class means, the means (relative to the overall one), and the one-hot labels."""
    member = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    x = features.astype(jnp.float32)
    x = x - jnp.mean(x, axis=0, keepdims=True)
    means = jnp.dot(member.T, x, precision="highest") / member.sum(axis=0)[:, None]
    return x - jnp.dot(member, means, precision="highest"), means, member


def _unit_axes(means: Float[Array, "k d"]) -> tuple[Float[Array, "p d"], Float[Array, " p"], Float[Array, " p"]]:
    """u, d and the rounding of u."""
    first, second = axis_pairs(means.shape[0])
    difference = means[second] - means[first]
    distance = jnp.linalg.norm(difference, axis=1)
    size = jnp.linalg.norm(means, axis=1)
    uncertain = RESOLUTION * jnp.maximum(size[first], size[second])
    distance = jnp.where(distance > uncertain, distance, 0)
    divisor = jnp.where(distance > 0, distance, jnp.nan)
    return difference / divisor[:, None], distance, uncertain / divisor


def _class_means(values: Float[Array, " n"], member: Float[Array, "n k"]) -> Float[Array, " k"]:
    counts = jnp.maximum(member.sum(axis=0), 1)
    return jnp.dot(member.T, values, precision="highest") / counts


def _bound(
    first: DecisionAxes, second: DecisionAxes, variance_1: Float[Array, " p"], variance_2: Float[Array, " q"]
) -> Float[Array, "p q"]:
    # (d_1 / d_2) sqrt(2 K_2 W_1) = sqrt(2 K_2 d_1^2 W_1) / d_2, and d_1^2 W_1 is the variance along u_1
    from_first = jnp.sqrt(2 * second.num_classes * variance_1)[:, None] / second.distance[None, :]
    from_second = jnp.sqrt(2 * first.num_classes * variance_2)[None, :] / first.distance[:, None]
    return jnp.minimum(from_first, from_second)
