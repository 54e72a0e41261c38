"""The geometry of all class pairs: distances, CDNV, directional CDNV and what certificates need."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.core import Tracer

from dnc.geometry.moments import inverse, scale
from dnc.geometry.pytree import array_dataclass, static
from dnc.geometry.queries import Queries
from dnc.types import Array, ArrayLike, Float, Int

NOISE = 2.0  # standard deviations of a corrected squared distance, below which it says nothing


@array_dataclass
class MarginTerms:
    """What certificates need beyond collapse measures: moments that nearest-center margins depend on.

    `overlap` names what `covariance_overlap` holds off its diagonal: "exact" tr(Sigma_i Sigma_j), or an upper bound of
    it, which keeps every certificate valid: "cauchy_schwarz" sqrt(tr Sigma_i^2 tr Sigma_j^2), or "trace" v_i v_j, also
    on the diagonal.
    """

    third_moment: Float[Array, "k k"]  # [i, j] = E_{z~j}[((mu_i - mu_j).(z - mu_j)) ||z - mu_j||^2]
    covariance_overlap: Float[Array, "k k"]  # tr(Sigma_i Sigma_j), see `overlap`
    neighbors: Int[Array, "k q"]  # the nearest other classes, nearest first
    axis_covariance: Float[Array, "k q q"]  # [i, a, b] = (mu_i-mu_a)^T Sigma_i (mu_i-mu_b), a and b neighbors of i
    overlap: str = static("exact")

    def subset(self, classes: Int[Array, " w"], squared_distance: Float[Array, "w w"]) -> "MarginTerms":
        """Terms of only some of the classes, which lie at these squared distances."""
        k, q = self.neighbors.shape
        if q < k - 1:
            raise ValueError(f"the geometry of {k} classes keeps only {q} rivals of each: measure the subset's samples")
        own, other = classes[:, None], classes[None, :]
        position = jnp.argsort(self.neighbors, axis=1)  # [k, k-1]: of each other class among the neighbors
        rank = other - (other > own).astype(classes.dtype)  # of a class among the others of `own`
        column = position[own, jnp.minimum(rank, k - 2)]  # [w, w], of no meaning on the diagonal
        distance = jnp.where(jnp.eye(len(classes), dtype=bool), jnp.inf, squared_distance)
        neighbors = jax.lax.top_k(-distance, len(classes) - 1)[1]
        column = jnp.take_along_axis(column, neighbors, axis=1)
        return MarginTerms(
            third_moment=self.third_moment[own, other],
            covariance_overlap=self.covariance_overlap[own, other],
            neighbors=neighbors,
            axis_covariance=self.axis_covariance[own[:, :, None], column[:, :, None], column[:, None, :]],
            overlap=self.overlap,
        )


@array_dataclass
class PairGeometry:
    """Class moments and their projections on all decision axes u_ij = (mu_j - mu_i) / d_ij.

    Moments are population moments (1/n) unless `with_ddof` changed them; d_ij^2 is the plug-in estimate, biased up by
    v_i/n_i + v_j/n_j, unless `with_corrected_distances` changed it. Where two means coincide, cdnv, directional_cdnv
    and theta are inf and directional_variance is nan; where a corrected distance is nan, so are they.
    """

    counts: Float[Array, " k"]  # samples of each class, or the sum of their weights
    means: Float[Array, "k d"]
    variance: Float[Array, " k"]  # v_c = tr Sigma_c
    fourth_moment: Float[Array, " k"]  # M4_c = E||z - mu_c||^4
    squared_distance: Float[Array, "k k"]  # d_ij^2, diagonal 0
    directional_variance: Float[Array, "k k"]  # [i, j] = u_ij^T Sigma_i u_ij, diagonal nan
    margin_terms: MarginTerms | None = None  # what certificates need; None where measured with overlap="none"
    queries: Queries | None = None  # what `exact_conditional` and predictions need
    trace_of_cube: Float[Array, " k"] | None = None  # tr Sigma_c^3, comes with `queries`
    ddof: int = static(0)
    corrected: bool = static(False)

    @property
    def cdnv(self) -> Float[Array, "k k"]:
        """V_ij = (v_i + v_j) / d_ij^2, symmetric, without the factor 1/2 of `half_cdnv`."""
        return _over_distance(self.variance[:, None] + self.variance[None, :], self.squared_distance)

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
        m4 = self.fourth_moment
        return _over_distance(m4[:, None] + m4[None, :], self.squared_distance**2)

    def subset(self, classes: Int[ArrayLike, " w"]) -> "PairGeometry":
        """Geometry of only some of the classes, in the given order: what a certificate of a subtask needs.

        Jittable. Raises ValueError where joint covariances of rivals are incomplete, with more than NEIGHBORS + 1
        classes: measure the samples of these classes instead.
        """
        chosen = jnp.asarray(classes)
        distance = self.squared_distance[chosen[:, None], chosen[None, :]]
        return dataclasses.replace(
            self,
            counts=self.counts[chosen],
            means=self.means[chosen],
            variance=self.variance[chosen],
            fourth_moment=self.fourth_moment[chosen],
            squared_distance=distance,
            directional_variance=self.directional_variance[chosen[:, None], chosen[None, :]],
            margin_terms=None if self.margin_terms is None else self.margin_terms.subset(chosen, distance),
            queries=None if self.queries is None else self.queries.subset(chosen),
            trace_of_cube=None if self.trace_of_cube is None else self.trace_of_cube[chosen],
        )

    def with_ddof(self, ddof: int) -> "PairGeometry":
        """Second moments divided by n_c - ddof instead of n_c: ddof = 1 makes covariances unbiased.

        Moments of order three and four stay population moments, and `queries` are left out. Raises ValueError for a
        geometry that already has a ddof, or classes of no more than `ddof` samples (where counts are known).
        """
        if self.ddof:
            raise ValueError(f"the geometry already has ddof={self.ddof}: start from population moments")
        counts, terms = self.counts, self.margin_terms
        if not isinstance(counts, Tracer) and float(counts.min()) <= ddof:
            raise ValueError(
                f"ddof={ddof} needs classes of more than {ddof} samples, but one has {float(counts.min()):g}"
            )
        factor = counts / (counts - ddof)
        if terms is not None:
            terms = dataclasses.replace(
                terms,
                covariance_overlap=factor[:, None] * factor[None, :] * terms.covariance_overlap,
                axis_covariance=scale(factor, terms.axis_covariance),
            )
        return dataclasses.replace(
            self,
            variance=factor * self.variance,
            directional_variance=factor[:, None] * self.directional_variance,
            margin_terms=terms,
            queries=None,
            trace_of_cube=None,
            ddof=ddof,
        )

    def with_corrected_distances(self) -> "PairGeometry":
        """Estimates for the population that the samples come from: distances and what lies along noisy axes, corrected.

        With covariances of 1/(n - 1), D = mu_j - mu_i, t_i = E[(z - mu_i) ||z - mu_i||^2] and
        K_i = M4_i - v_i^2 - 2 tr Sigma_i^2, sample values D', Sigma' have

            E[||D'||^2]        = d^2 + v_i/n_i + v_j/n_j,
            E[D'^T Sigma_i' D'] = D^T Sigma_i D + tr(Sigma_i Sigma_j)/n_j + tr(Sigma_i^2)/n_i - 2 D.t_i/n_i + K_i/n_i^2.

        The estimates are these less unbiased estimates of what was added; W_ij is the second over d^4 estimated without
        bias, (d^2)^2 - Var[d^2]. So means over pairs are right where single pairs scatter, W_ij below 0 too. A pair
        whose d^2 lies within NOISE of its standard deviations of 0 is nan: the samples cannot tell the means apart.
        Moments of order two to four are unbiased as well (from four samples on, else nan).

        Raises ValueError for a geometry that is corrected already, or has no exact overlaps.
        """
        terms = self.margin_terms
        if self.corrected:
            raise ValueError("the geometry's distances are already corrected")
        if terms is None or terms.overlap != "exact":
            raise ValueError('corrections need tr(Sigma_i Sigma_j): measure with pair_geometry(..., overlap="exact")')
        return _corrected(self, terms)


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
def _corrected(geometry: PairGeometry, terms: MarginTerms) -> PairGeometry:
    """See `PairGeometry.with_corrected_distances`."""
    n, share = geometry.counts, inverse(geometry.counts)
    factor = (n - geometry.ddof) * inverse(n - 1)
    own = jnp.eye(n.shape[0], dtype=bool)
    variance = factor * geometry.variance
    overlap = factor[:, None] * factor[None, :] * terms.covariance_overlap
    square = trace_of_square(n, jnp.diag(overlap), variance, geometry.fourth_moment)
    overlap = jnp.where(own, square[:, None], overlap)
    fourth, excess = _unbiased_fourth(n, geometry.fourth_moment, variance, square)
    third = (n**2 * inverse((n - 1) * (n - 2)))[None, :] * terms.third_moment

    own_noise = share * (share * excess - square)  # [k]: in (mu_i - mu_a)^T Sigma_i (mu_i - mu_b) for any a, b
    skew = share[None, :] * third  # [j, i]: D.t_i / n_i
    measured = factor[:, None] * geometry.directional_variance * geometry.squared_distance
    along = measured + own_noise[:, None] + 2 * skew.T - overlap * share[None, :]
    along = jnp.where(own, 0, along)  # D^T Sigma_i D
    bias = variance * share
    distance = geometry.squared_distance - bias[:, None] - bias[None, :]
    spread = square * share**2
    spread = spread[:, None] + spread[None, :] + 2 * overlap * share[:, None] * share[None, :]
    of_axis = jnp.maximum(along, 0) * share[:, None]
    noise = 4 * (of_axis + of_axis.T) + 2 * spread  # Var[d~^2]
    apart = distance > NOISE * jnp.sqrt(noise)

    near = terms.neighbors
    to_near = jnp.take_along_axis(skew.T, near, axis=1)
    joint = scale(factor, terms.axis_covariance) + own_noise[:, None, None]
    joint = joint + to_near[:, :, None] + to_near[:, None, :]
    of_rival = jnp.take_along_axis(overlap * share[None, :], near, axis=1)
    joint = joint - of_rival[:, :, None] * jnp.eye(near.shape[1])[None]
    squared = jnp.where(apart, distance**2 - noise, jnp.nan)
    return dataclasses.replace(
        geometry,
        variance=variance,
        fourth_moment=fourth,
        squared_distance=jnp.where(own, 0, jnp.where(apart, distance, jnp.nan)),
        directional_variance=jnp.where(own, jnp.nan, along * distance / squared),
        margin_terms=MarginTerms(third + (share * excess)[None, :], overlap, near, joint, overlap="exact"),
        queries=None,
        trace_of_cube=None,
        ddof=1,
        corrected=True,
    )


@jax.jit
def _over_distance(numerator: Float[Array, "k k"], divisor: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """numerator / divisor; inf where a divisor off the diagonal is zero, nan where it is nan and on the diagonal."""
    ratio = jnp.where(divisor == 0, jnp.inf, numerator / jnp.where(divisor == 0, 1, divisor))
    return jnp.where(jnp.eye(divisor.shape[0], dtype=bool), jnp.nan, ratio)


def trace_of_square(
    n: Float[Array, " k"], plug_in: Float[Array, " k"], variance: Float[Array, " k"], fourth: Float[Array, " k"]
) -> Float[Array, " k"]:
    """tr Sigma^2, unbiased, from tr S^2 and tr S with 1/(n - 1) and M4 with 1/n; nan for fewer than four samples.

        (n-1) / (n (n-2) (n-3)) [ (n-1)(n-2) tr S^2 + (tr S)^2 - n/(n-1) sum ||z - mu^||^4 ]

    The U-statistic of Himeno and Yamada (2014).
    """
    divisor = n * (n - 2) * (n - 3)
    total = (n - 1) * (n - 2) * plug_in + variance**2 - n**2 / (n - 1) * fourth
    return jnp.where(n > 3, (n - 1) / jnp.where(n > 3, divisor, jnp.nan) * total, jnp.nan)


def _unbiased_fourth(
    n: Float[Array, " k"], plug_in: Float[Array, " k"], variance: Float[Array, " k"], square: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """M4 and K = M4 - v^2 - 2 tr Sigma^2, unbiased, from M4 with 1/n and unbiased v and tr Sigma^2.

    They solve, with P = v^2 + 2 tr Sigma^2,

        n^3/(n-1) E[M4^] = (n^2 - 3n + 3) M4 + (2n - 3) P,     E[v^^2] = v^2 + (M4 - v^2)/n + 2 tr Sigma^2 / (n (n-1)).
    """
    share = 1 / (n - 1)
    at_least = n * share * (variance**2 - 2 * square * share / n) + 2 * square  # P + M4/(n-1)
    fourth = (n**3 * share * plug_in - (2 * n - 3) * at_least) / (n**2 - 3 * n + 3 - (2 * n - 3) * share)
    return fourth, fourth * n * share - at_least
