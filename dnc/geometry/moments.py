"""Class moments up to order four: what every collapse measure and certificate is made of.

All moments are population moments (divided by n_c, not n_c - 1; with weights, by their sum) about the class mean.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry import symmetric
from dnc.geometry.blocks import CenteredBlocks, class_blocks
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int

RESOLUTION = 4 * float(jnp.finfo(jnp.float32).eps)  # means closer than this, relative to their size, coincide
_ROWS_FOR_ORIGIN = 1024


@array_dataclass
class ClassMoments:
    """Moments of each class, a mergeable pytree: `empty`, `from_batch`, `merge`, `coarsen`.

    Means are kept relative to `origin`, a point near the data: float32 features far from zero lose nothing
    (at an offset of 1e4 standard deviations an absolute float32 mean is off by 5e-4 of one).

    Third and fourth moments of a union depend on the parts' covariances, so those three come together or not at all.
    """

    origin: Float[Array, " d"]
    count: Float[Array, " k"]  # or sum of weights
    mean: Float[Array, "k d"]  # relative to origin
    variance: Float[Array, " k"]  # tr Sigma_c = E||z - mu_c||^2
    fourth_moment: Float[Array, " k"] | None  # E||z - mu_c||^4
    third_moment: Float[Array, "k d"] | None  # E[(z - mu_c) ||z - mu_c||^2]
    covariance: Float[Array, "k d d"] | None

    @property
    def means(self) -> Float[Array, "k d"]:
        """Class means in the features' own coordinates (rounded there: use `mean` for differences)."""
        return self.mean + self.origin[None, :]

    @staticmethod
    def empty(num_classes: int, dimension: int, covariance: bool = True) -> "ClassMoments":
        """The neutral element of `merge`: no samples."""
        k, d = num_classes, dimension
        origin, classes, vectors = jnp.zeros(d), jnp.zeros(k), jnp.zeros((k, d))
        higher = (classes, vectors, jnp.zeros((k, d, d))) if covariance else (None, None, None)
        return ClassMoments(origin, classes, vectors, classes, *higher)

    @staticmethod
    @converted(features=as_numbers, labels=as_codes, weights=as_numbers)
    @functools.partial(jax.jit, static_argnames=("num_classes", "covariance"))
    def from_batch(
        features: Float[ArrayLike, "n d"],
        labels: Int[ArrayLike, " n"],
        num_classes: int,
        weights: Float[ArrayLike, " n"] | None = None,
        covariance: bool = True,
    ) -> "ClassMoments":
        """Moments of one batch. Labels must lie in [0, num_classes); classes without samples get zeros.

        A sample of weight 0 does not count, whatever it and its label hold. Without `covariance`, memory is O(k d)
        and the moments of order three and four are left out.
        """
        centered, count = center_by_class(features, labels, num_classes, weights)
        weight = inverse(count)

        def terms(r: Array, w: Array, _: Array) -> dict[str, Array]:
            squares = jnp.sum(r * r, axis=2)  # ||z - mu||^2
            result = {"variance": jnp.sum(w * squares, axis=1)}
            if covariance:
                result["fourth"] = jnp.sum(w * squares**2, axis=1)
                result |= vector_sums(r, w, squares)
            return result

        sums = {name: scale(weight, value) for name, value in centered.sums(terms).items()}
        basic = (centered.origin, count, centered.mean, sums["variance"])
        if not covariance:
            return ClassMoments(*basic, None, None, None)
        sigma = scale(weight, centered.map_second_moments(symmetric.dense))
        third = sums["third"] - mean_slip(sums) - 2 * _product(sigma, sums["slip"])
        return ClassMoments(*basic, sums["fourth"], third, sigma)

    @jax.jit
    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """Moments of the union of two disjoint samples (Chan, Golub, LeVeque 1983, extended to order four).

        With e = (mean of a part) - (mean of the union) and y = r + e, E r = 0, each part contributes
            E y y^T     = Sigma + e e^T
            E y ||y||^2 = t + 2 Sigma e + (v + ||e||^2) e
            E ||y||^4   = M4 + 4 e.t + 4 e^T Sigma e + 2 v ||e||^2 + ||e||^4
        The origin of the first part that has samples is kept. Covariances must be in both parts or in neither.
        """
        origin = jnp.where(self.count.sum() > 0, self.origin, other.origin)
        count = self.count + other.count
        left, right = self.count * inverse(count), other.count * inverse(count)
        mean_left = self.mean + (self.origin - origin)[None, :]
        mean_right = other.mean + (other.origin - origin)[None, :]
        gap = mean_right - mean_left
        parts = self._about(-scale(right, gap)), other._about(scale(left, gap))
        moments = jax.tree.map(lambda a, b: scale(left, a) + scale(right, b), *parts)
        mean = scale(left, mean_left) + scale(right, mean_right)
        return ClassMoments(origin, count, mean, *moments)

    def coarsen(self, superclass: Sequence[int] | np.ndarray) -> "ClassMoments":
        """Moments of superclasses: class c becomes part of class superclass[c]. Exact; the data is not needed.

        Raises ValueError unless every class has a superclass and the superclasses are 0..K-1, each with a class.

        >>> features, labels = np.array([[-1.0, 0.0], [1.0, 0.0], [4.0, -1.0], [4.0, 1.0]]), np.array([0, 0, 1, 2])
        >>> coarse = ClassMoments.from_batch(features, labels, num_classes=3).coarsen([0, 0, 1])
        >>> coarse.count.tolist(), [round(value, 4) for value in coarse.variance.tolist()]
        ([3.0, 1.0], [4.4444, 0.0])
        """
        parent = np.asarray(superclass)
        k = self.count.shape[0]
        if parent.shape != (k,) or parent.dtype.kind not in "iu":
            raise ValueError(f"superclass must give one integer for each of {k} classes, got {superclass!r}")
        num_parents = int(parent.max()) + 1
        if set(parent.tolist()) != set(range(num_parents)):
            missing = sorted(set(range(num_parents)) - set(parent.tolist()))[:5]
            raise ValueError(f"superclass must use every number of 0..{num_parents - 1}: no class has {missing}")
        return self._coarsen(jnp.asarray(parent, jnp.int32), num_parents)

    @functools.partial(jax.jit, static_argnames="num_parents")
    def _coarsen(self, parent: Int[Array, " k"], num_parents: int) -> "ClassMoments":
        add_up = functools.partial(jax.ops.segment_sum, segment_ids=parent, num_segments=num_parents)
        count = add_up(self.count)
        share = self.count * inverse(count)[parent]
        mean = add_up(scale(share, self.mean))
        e = self.mean - mean[parent]
        e -= add_up(scale(share, e))[parent]  # what rounding the mean left
        moments = jax.tree.map(lambda part: add_up(scale(share, part)), self._about(e))
        return ClassMoments(self.origin, count, mean, *moments)

    def _about(self, e: Float[Array, "k d"]) -> tuple[Array, Array | None, Array | None, Array | None]:
        """Variance, fourth, third moment and covariance about mean - e."""
        square = jnp.sum(e * e, axis=1)
        if self.covariance is None or self.third_moment is None or self.fourth_moment is None:
            return self.variance + square, None, None, None
        along = _product(self.covariance, e)  # Sigma e
        fourth = (
            self.fourth_moment
            + 4 * jnp.sum(e * self.third_moment, axis=1)
            + 4 * jnp.sum(e * along, axis=1)
            + 2 * self.variance * square
            + square**2
        )
        third = self.third_moment + 2 * along + scale(self.variance + square, e)
        covariance = self.covariance + e[:, :, None] * e[:, None, :]
        return self.variance + square, fourth, third, covariance


def center_by_class(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    weights: Float[ArrayLike, " n"] | None = None,
    parts: int = 1,
) -> tuple[CenteredBlocks, Float[Array, " k"]]:
    """Samples about their class means, in class blocks, and the class counts (sums of weights).

    `parts` is the number of equal parts of the rows, each sorted and summed separately: on a mesh, one per shard.
    """
    uncentered = group_by_class(features, labels, num_classes, weights, parts)
    sums = uncentered.sums(mean_terms)
    mean = scale(inverse(sums["count"]), sums["total"])
    return CenteredBlocks(uncentered.features, uncentered.blocks, uncentered.origin, mean), sums["count"]


def group_by_class(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    weights: Float[ArrayLike, " n"] | None = None,
    parts: int = 1,
) -> CenteredBlocks:
    """Samples in class blocks about an origin near them: their class means are taken to be 0."""
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    n, d = features.shape
    if n % parts:
        raise ValueError(f"{n} rows do not divide into {parts} equal parts: pad them with samples of weight 0")
    cut = features.reshape(parts, n // parts, d)
    weight = jnp.ones((n,), jnp.float32) if weights is None else jnp.asarray(weights, jnp.float32)
    weight = weight.reshape(parts, n // parts)
    blocks = class_blocks(labels.reshape(parts, n // parts), num_classes, weight)
    head, kept = cut[:, :_ROWS_FOR_ORIGIN].astype(jnp.float32), weight[:, :_ROWS_FOR_ORIGIN, None] > 0
    origin = jnp.sum(jnp.where(kept, head, 0), axis=(0, 1)) / jnp.maximum(jnp.sum(kept), 1).astype(jnp.float32)
    return CenteredBlocks(cut, blocks, origin, jnp.zeros((num_classes, d), jnp.float32))


def mean_terms(z: Float[Array, "b s d"], w: Float[Array, "b s"], _: Int[Array, " b"]) -> dict[str, Array]:
    """Block sums from which class means follow."""
    return {"count": jnp.sum(w, axis=1), "total": jnp.einsum("bs,bsd->bd", w, z, precision="highest")}


def vector_sums(
    r: Float[Array, "b s d"], w: Float[Array, "b s"], squares: Float[Array, "b s"]
) -> dict[str, Float[Array, "b d"]]:
    """Block sums of w r and w r ||r||^2."""
    both = jnp.einsum("bjs,bsd->bjd", jnp.stack([w, w * squares], axis=1), r, precision="highest")
    return {"slip": both[:, 0], "third": both[:, 1]}


def mean_slip(sums: dict[str, Array]) -> Float[Array, "k d"]:
    """What the mean e that rounded class means leave in residuals r adds to E[r ||r||^2], besides 2 Sigma e.

    e is about 1e-7 of the means' size. Only the third moment changes to first order:
    E (r-e)||r-e||^2 = E r||r||^2 - v e - 2 Sigma e + O(e^2).
    """
    return scale(sums["variance"], sums["slip"])


def inverse(count: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1 / count, and 0 for 0."""
    return jnp.where(count > 0, 1 / jnp.where(count > 0, count, 1), 0)


def scale(weight: Float[Array, " k"], values: Float[Array, "k *rest"]) -> Float[Array, "k *rest"]:
    """values[c] * weight[c]."""
    return weight.reshape((-1,) + (1,) * (values.ndim - 1)) * values


def _product(covariance: Float[Array, "k d d"], e: Float[Array, "k d"]) -> Float[Array, "k d"]:
    return jnp.einsum("kde,ke->kd", covariance, e, precision="highest")
