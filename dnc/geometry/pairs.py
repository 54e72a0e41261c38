"""Every class pair at once: distances, CDNV, directional CDNV and what certificates need."""

import functools

import jax
import jax.numpy as jnp

from dnc.geometry.moments import RESOLUTION, CentredClasses, ClassMoments, centre_by_class, moments_of, second_moments
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int


@array_dataclass
class PairGeometry:
    """Class moments and their projections on all decision axes u_ij = (mu_j - mu_i) / d_ij.

    Moments are population moments (1/n); d_ij^2 is the plug-in estimate, biased up by v_i/n_i + v_j/n_j.
    Where two means coincide, cdnv, directional_cdnv and theta are inf and directional_variance is nan.
    """

    counts: Float[ArrayLike, " k"]  # samples of each class
    means: Float[ArrayLike, "k d"]
    variance: Float[ArrayLike, " k"]  # v_c = tr Sigma_c
    fourth_moment: Float[ArrayLike, " k"]  # M4_c = E||z - mu_c||^4
    squared_distance: Float[ArrayLike, "k k"]  # d_ij^2, diagonal 0
    directional_variance: Float[ArrayLike, "k k"]  # [i, j] = u_ij^T Sigma_i u_ij, diagonal nan
    third_moment: Float[ArrayLike, "k k"]  # kappa_ij = E_{z~j}[((mu_i - mu_j).(z - mu_j)) ||z - mu_j||^2]
    covariance_overlap: Float[ArrayLike, "k k"]  # tr(Sigma_i Sigma_j)
    axis_covariance: Float[ArrayLike, "k k k"]  # [i, j, l] = (mu_i - mu_j)^T Sigma_i (mu_i - mu_l)

    @property
    def cdnv(self) -> Float[Array, "k k"]:
        """V_ij = (v_i + v_j) / d_ij^2, symmetric, without the factor 1/2 of some published code."""
        v = jnp.asarray(self.variance)
        return _over_distance(v[:, None] + v[None, :], self.squared_distance)

    @property
    def directional_cdnv(self) -> Float[Array, "k k"]:
        """W_ij = u_ij^T Sigma_i u_ij / d_ij^2: class i's variance along the axis to j. Not symmetric."""
        return _over_distance(self.directional_variance, self.squared_distance)

    @property
    def theta(self) -> Float[Array, "k k"]:
        """Theta_ij = (M4_i + M4_j) / d_ij^4, the tail term of Luthra et al. (2026), Theorem 4.1."""
        m4 = jnp.asarray(self.fourth_moment)
        return _over_distance(m4[:, None] + m4[None, :], jnp.asarray(self.squared_distance) ** 2)


@functools.partial(jax.jit, static_argnames="num_classes")
def pair_geometry(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int) -> PairGeometry:
    """Geometry of all k(k-1) ordered class pairs (Luthra et al. 2026, sections 2 and 4).

    For x in class i let p_j(x) = (x - mu_i) . (mu_j - mu_i). One (n, d) @ (d, k) product gives every p_j(x);
    the class means of p_j p_l are the axis covariances; u_ij^T Sigma_i u_ij = E_i[p_j^2] / d_ij^2.

    Pure and jitted, `num_classes` static. Features must be finite, labels in [0, num_classes) and every
    class non-empty: `dnc.geometry.validation.validate` checks that on the host.
    """
    centred = centre_by_class(jnp.asarray(features), jnp.asarray(labels), num_classes)
    return _assemble(moments_of(centred), second_moments(centred, _projections(centred)))


@jax.jit
def pair_geometry_from_moments(moments: ClassMoments) -> PairGeometry:
    """The same from (merged) class moments alone, without the data.

    Quadratic forms of float32 covariances: the directional variance loses about tr Sigma_i / (u^T Sigma_i u)
    times 1e-7 of relative accuracy, so prefer `pair_geometry` for strongly collapsed features.
    """

    def along_axes(arguments: tuple[Array, Array]) -> Array:
        mean, covariance = arguments
        axes = mean[None, :] - moments.mean
        return jnp.einsum("jd,de,le->jl", axes, covariance, axes, precision="highest")

    return _assemble(moments, jax.lax.map(along_axes, (moments.mean, moments.covariance)))


@jax.jit
def mean_over_pairs(values: Float[ArrayLike, "*batch k k"]) -> Float[Array, "*batch"]:
    """Mean of the off-diagonal entries: over all ordered class pairs."""
    values = jnp.asarray(values)
    k = values.shape[-1]
    diagonal = jnp.broadcast_to(jnp.eye(k, dtype=bool), values.shape)
    return jnp.where(diagonal, 0, values).sum(axis=(-2, -1)) / (k * (k - 1))


def squared_distances(mean: Float[Array, "k d"], variance: Float[Array, " k"]) -> Float[Array, "k k"]:
    """||mu_i - mu_j||^2, and 0 for means that float32 cannot tell apart.

    From differences, row by row: ||a||^2 + ||b||^2 - 2 a.b would cancel for close means.
    """
    distance = jax.lax.map(lambda one: jnp.sum((mean - one[None, :]) ** 2, axis=1), mean)
    size = jnp.sum(mean**2, axis=1) + variance
    return jnp.where(distance > RESOLUTION**2 * jnp.maximum(size[:, None], size[None, :]), distance, 0)


def _projections(centred: CentredClasses) -> Float[Array, "blocks size k"]:
    scores = jnp.einsum("bsd,kd->bsk", centred.residuals, centred.mean, precision="highest")
    own = jnp.take_along_axis(scores, centred.blocks.block_class[:, None, None], axis=2)
    return scores - own  # (x - mu_i) . (mu_j - mu_i)


def _assemble(moments: ClassMoments, axis_covariance: Float[Array, "k k k"]) -> PairGeometry:
    k = moments.count.shape[0]
    distance = squared_distances(moments.mean, moments.variance)
    axis_variance = jnp.diagonal(axis_covariance, axis1=1, axis2=2)  # D_ij^T Sigma_i D_ij
    skew = jax.lax.map(
        lambda arguments: jnp.dot(moments.mean - arguments[0][None, :], arguments[1], precision="highest"),
        (moments.mean, moments.third_moment),
    )
    flat = moments.covariance.reshape(k, -1)
    return PairGeometry(
        counts=moments.count,
        means=moments.means,
        variance=moments.variance,
        fourth_moment=moments.fourth_moment,
        squared_distance=distance,
        directional_variance=axis_variance / jnp.where(distance > 0, distance, jnp.nan),
        third_moment=skew.T,
        covariance_overlap=jnp.dot(flat, flat.T, precision="highest"),
        axis_covariance=axis_covariance,
    )


@jax.jit
def _over_distance(numerator: Float[ArrayLike, "k k"], divisor: Float[ArrayLike, "k k"]) -> Float[Array, "k k"]:
    """numerator / divisor; inf where a divisor off the diagonal is zero, nan on the diagonal."""
    divisor = jnp.asarray(divisor)
    ratio = jnp.where(divisor > 0, jnp.asarray(numerator) / jnp.where(divisor > 0, divisor, 1), jnp.inf)
    return jnp.where(jnp.eye(divisor.shape[0], dtype=bool), jnp.nan, ratio)
