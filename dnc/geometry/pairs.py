"""The geometry of all class pairs: distances, CDNV, directional CDNV and what certificates need."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from dnc.geometry.moments import inverse, scale
from dnc.geometry.pytree import array_dataclass, static
from dnc.geometry.queries import QueryGeometry
from dnc.types import Array, ArrayLike, Float, Int


@array_dataclass
class PairGeometry:
    """Class moments and their projections on all decision axes u_ij = (mu_j - mu_i) / d_ij.

    Moments are population moments (1/n) unless `with_ddof` changed them; d_ij^2 is the plug-in estimate, biased up by
    v_i/n_i + v_j/n_j, unless `with_corrected_distances` changed it. Where two means coincide, cdnv, directional_cdnv
    and theta are inf and directional_variance is nan.

    The arrays from `third_moment` on are what certificates need: None where `overlap` is "none". Otherwise it tells
    what `covariance_overlap` holds off its diagonal: "exact" tr(Sigma_i Sigma_j), or an upper bound of it, which keeps
    every certificate valid: "cauchy_schwarz" sqrt(tr Sigma_i^2 tr Sigma_j^2), or "trace" v_i v_j, also on the diagonal.
    """

    counts: Float[ArrayLike, " k"]  # samples of each class, or the sum of their weights
    means: Float[ArrayLike, "k d"]
    variance: Float[ArrayLike, " k"]  # v_c = tr Sigma_c
    fourth_moment: Float[ArrayLike, " k"]  # M4_c = E||z - mu_c||^4
    squared_distance: Float[ArrayLike, "k k"]  # d_ij^2, diagonal 0
    directional_variance: Float[ArrayLike, "k k"]  # [i, j] = u_ij^T Sigma_i u_ij, diagonal nan
    third_moment: Float[ArrayLike, "k k"] | None = None  # [i, j] = E_{z~j}[((mu_i - mu_j).(z - mu_j)) ||z - mu_j||^2]
    covariance_overlap: Float[ArrayLike, "k k"] | None = None  # tr(Sigma_i Sigma_j), see `overlap`
    neighbors: Int[ArrayLike, "k q"] | None = None  # the nearest other classes, nearest first
    axis_covariance: Float[ArrayLike, "k q q"] | None = None  # [i, a, b] = (mu_i-mu_a)^T Sigma_i (mu_i-mu_b), neighbors
    queries: QueryGeometry | None = None  # what `exact_conditional` needs
    overlap: str = static("none")
    ddof: int = static(0)
    corrected: bool = static(False)

    @property
    def cdnv(self) -> Float[Array, "k k"]:
        """V_ij = (v_i + v_j) / d_ij^2, symmetric, without the factor 1/2 of `half_cdnv`."""
        v = jnp.asarray(self.variance)
        return _over_distance(v[:, None] + v[None, :], self.squared_distance)

    @property
    def half_cdnv(self) -> Float[Array, "k k"]:
        """(v_i + v_j) / (2 d_ij^2): the convention of Galanti et al. (2022) and of some published code."""
        return self.cdnv / 2

    @property
    def directional_cdnv(self) -> Float[Array, "k k"]:
        """W_ij = u_ij^T Sigma_i u_ij / d_ij^2: class i's variance along the axis to j. Not symmetric."""
        return _over_distance(self.directional_variance, self.squared_distance)

    @property
    def theta(self) -> Float[Array, "k k"]:
        """Theta_ij = (M4_i + M4_j) / d_ij^4, the tail term of Luthra et al. (2026), Theorem 4.1."""
        m4 = jnp.asarray(self.fourth_moment)
        return _over_distance(m4[:, None] + m4[None, :], jnp.asarray(self.squared_distance) ** 2)

    def subset(self, classes: Int[ArrayLike, " w"]) -> "PairGeometry":
        """Geometry of some of the classes alone, in the order given: what a certificate of a subtask needs.

        Jittable. Raises ValueError where joint covariances of rivals are incomplete, with more than NEIGHBORS + 1
        classes: measure the samples of these classes instead.
        """
        chosen = jnp.asarray(classes)
        rows, k = jnp.arange(chosen.shape[0]), self.counts.shape[0]

        def pick(values: ArrayLike | None) -> Any:
            if values is None or values.ndim == 1:
                return None if values is None else jnp.asarray(values)[chosen]
            return jnp.asarray(values)[chosen[:, None], chosen[None, :]]

        near = joint = queries = None
        if self.neighbors is not None and self.axis_covariance is not None:
            if self.neighbors.shape[1] < k - 1:
                raise ValueError(f"the geometry of {k} classes holds {self.neighbors.shape[1]} rivals of each: too few")
            place = jnp.argsort(jnp.asarray(self.neighbors), axis=1)  # [k, k-1]: where each other class stands
            others = chosen[None, :] - (chosen[None, :] > chosen[:, None]).astype(
                chosen.dtype
            )  # its number among the others
            at = place[chosen[:, None], jnp.minimum(others, k - 2)]  # [w, w], of no meaning on the diagonal
            distance = jnp.where(rows[:, None] == rows[None, :], jnp.inf, pick(self.squared_distance))
            near = jax.lax.top_k(-distance, chosen.shape[0] - 1)[1]
            columns = jnp.take_along_axis(at, near, axis=1)
            axes = jnp.asarray(self.axis_covariance)
            joint = axes[chosen[:, None, None], columns[:, :, None], columns[:, None, :]]
        if self.queries is not None:
            queries = self.queries.subset(chosen)
        return dataclasses.replace(
            self,
            counts=pick(self.counts),
            means=jnp.asarray(self.means)[chosen],
            variance=pick(self.variance),
            fourth_moment=pick(self.fourth_moment),
            squared_distance=pick(self.squared_distance),
            directional_variance=pick(self.directional_variance),
            third_moment=pick(self.third_moment),
            covariance_overlap=pick(self.covariance_overlap),
            neighbors=near,
            axis_covariance=joint,
            queries=queries,
        )

    def with_ddof(self, ddof: int) -> "PairGeometry":
        """Second moments divided by n_c - ddof instead of n_c: ddof = 1 makes covariances unbiased.

        Moments of order three and four stay population moments, and `queries` are left out. Raises ValueError for a
        geometry that has a ddof, or classes of no more than `ddof` samples (where counts are known).
        """
        if self.ddof:
            raise ValueError(f"the geometry already has ddof={self.ddof}: start from population moments")
        counts = jnp.asarray(self.counts)
        if not isinstance(counts, Tracer) and float(counts.min()) <= ddof:
            raise ValueError(f"ddof={ddof} needs classes of more than {ddof} samples, one has {float(counts.min()):g}")
        factor = counts / (counts - ddof)
        both = factor[:, None] * factor[None, :]
        overlap, axes = self.covariance_overlap, self.axis_covariance
        return dataclasses.replace(
            self,
            variance=factor * self.variance,
            directional_variance=factor[:, None] * self.directional_variance,
            covariance_overlap=None if overlap is None else both * overlap,
            axis_covariance=None if axes is None else scale(factor, jnp.asarray(axes)),
            queries=None,
            ddof=ddof,
        )

    def with_corrected_distances(self) -> "PairGeometry":
        """d_ij^2 less its plug-in bias: d_ij^2 - v_i/(n_i - 1) - v_j/(n_j - 1), v of 1/n; 0 where that is negative.

        An unbiased estimate before clipping. A pair whose means the samples cannot tell apart gets distance 0, hence
        infinite ratios. Directional variances keep the axes of the sample means.
        """
        if self.corrected:
            raise ValueError("the geometry's distances are corrected already")
        counts = jnp.asarray(self.counts)
        bias = self.variance * (counts - self.ddof) * inverse(counts * (counts - 1))
        distance = jnp.maximum(self.squared_distance - bias[:, None] - bias[None, :], 0)
        distance = jnp.where(jnp.eye(counts.shape[0], dtype=bool), 0, distance)
        shrink = jnp.sqrt(distance * inverse(jnp.asarray(self.squared_distance)))  # of D_ij, which keeps its direction
        third, axes = self.third_moment, self.axis_covariance
        if axes is not None:
            near = jnp.take_along_axis(shrink, jnp.asarray(self.neighbors), axis=1)
            axes = axes * near[:, :, None] * near[:, None, :]
        return dataclasses.replace(
            self,
            squared_distance=distance,
            third_moment=None if third is None else third * shrink,
            axis_covariance=axes,
            queries=None,
            corrected=True,
        )


@jax.jit
def mean_over_pairs(values: Float[ArrayLike, "*batch k k"]) -> Float[Array, "*batch"]:
    """Mean of the off-diagonal entries: over all ordered class pairs.

    >>> float(mean_over_pairs(jnp.array([[jnp.nan, 0.25], [0.75, jnp.nan]])))
    0.5
    """
    values = jnp.asarray(values)
    k = values.shape[-1]
    diagonal = jnp.broadcast_to(jnp.eye(k, dtype=bool), values.shape)
    return jnp.where(diagonal, 0, values).sum(axis=(-2, -1)) / (k * (k - 1))


@jax.jit
def _over_distance(numerator: Float[ArrayLike, "k k"], divisor: Float[ArrayLike, "k k"]) -> Float[Array, "k k"]:
    """numerator / divisor; inf where a divisor off the diagonal is zero, nan on the diagonal."""
    divisor = jnp.asarray(divisor)
    ratio = jnp.where(divisor > 0, jnp.asarray(numerator) / jnp.where(divisor > 0, divisor, 1), jnp.inf)
    return jnp.where(jnp.eye(divisor.shape[0], dtype=bool), jnp.nan, ratio)
