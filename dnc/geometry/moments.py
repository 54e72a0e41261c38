"""Class moments up to order four: what every collapse measure and certificate is made of.

All moments are population moments (divided by n_c, not n_c - 1) about the class mean.
"""

import functools

import jax
import jax.numpy as jnp

from dnc.geometry.blocks import ClassBlocks, class_blocks, sum_by_class
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int

RESOLUTION = 4 * float(jnp.finfo(jnp.float32).eps)  # means closer than this, relative to their size, coincide


@array_dataclass
class ClassMoments:
    """Moments of each class, a mergeable pytree: `empty`, `from_batch`, `merge`.

    Means are kept relative to `origin`, a point near the data: float32 features far from zero lose nothing
    (at an offset of 1e4 standard deviations an absolute float32 mean is off by 5e-4 of one).
    """

    origin: Float[Array, " d"]
    count: Float[Array, " k"]
    mean: Float[Array, "k d"]  # relative to origin
    variance: Float[Array, " k"]  # tr Sigma_c = E||z - mu_c||^2
    fourth_moment: Float[Array, " k"]  # E||z - mu_c||^4
    third_moment: Float[Array, "k d"]  # E[(z - mu_c) ||z - mu_c||^2]
    covariance: Float[Array, "k d d"]

    @property
    def means(self) -> Float[Array, "k d"]:
        """Class means in the features' own coordinates (rounded there: use `mean` for differences)."""
        return self.mean + self.origin[None, :]

    @staticmethod
    def empty(num_classes: int, dimension: int) -> "ClassMoments":
        """The neutral element of `merge`: no samples."""
        k, d = num_classes, dimension
        shapes = ((d,), (k,), (k, d), (k,), (k,), (k, d), (k, d, d))
        return ClassMoments(*(jnp.zeros(shape, jnp.float32) for shape in shapes))

    @staticmethod
    @functools.partial(jax.jit, static_argnames="num_classes")
    def from_batch(features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int):
        """Moments of one batch. Labels must lie in [0, num_classes); classes without samples get zeros."""
        return moments_of(centre_by_class(jnp.asarray(features), jnp.asarray(labels), num_classes))

    @jax.jit
    def merge(self, other: "ClassMoments") -> "ClassMoments":
        """Moments of the union of two disjoint samples (Chan, Golub, LeVeque 1983, extended to order four).

        With e = (mean of a part) - (mean of the union) and y = r + e, E r = 0, each part contributes
            E y y^T     = Sigma + e e^T
            E y ||y||^2 = t + 2 Sigma e + (v + ||e||^2) e
            E ||y||^4   = M4 + 4 e.t + 4 e^T Sigma e + 2 v ||e||^2 + ||e||^4
        The origin of the first part that has samples is kept.
        """
        origin = jnp.where(self.count.sum() > 0, self.origin, other.origin)
        count = self.count + other.count
        left = self.count / jnp.maximum(count, 1e-30)
        right = other.count / jnp.maximum(count, 1e-30)
        mean_left = self.mean + (self.origin - origin)[None, :]
        mean_right = other.mean + (other.origin - origin)[None, :]
        gap = mean_right - mean_left
        shifted_left = self._about(-right[:, None] * gap)
        shifted_right = other._about(left[:, None] * gap)
        moments = [_scale(left, a) + _scale(right, b) for a, b in zip(shifted_left, shifted_right, strict=True)]
        mean = _scale(left, mean_left) + _scale(right, mean_right)
        return ClassMoments(origin, count, mean, *moments)

    def _about(self, e: Float[Array, "k d"]) -> tuple[Array, Array, Array, Array]:
        """Variance, fourth, third moment and covariance about mean - e."""
        square = jnp.sum(e * e, axis=1)
        along = jnp.einsum("kde,ke->kd", self.covariance, e, precision="highest")  # Sigma e
        fourth = (
            self.fourth_moment
            + 4 * jnp.sum(e * self.third_moment, axis=1)
            + 4 * jnp.sum(e * along, axis=1)
            + 2 * self.variance * square
            + square**2
        )
        third = self.third_moment + 2 * along + (self.variance + square)[:, None] * e
        covariance = self.covariance + e[:, :, None] * e[:, None, :]
        return self.variance + square, fourth, third, covariance


@array_dataclass
class CentredClasses:
    """Samples minus their class mean, in class blocks; padding slots are zero."""

    blocks: ClassBlocks
    origin: Float[Array, " d"]
    mean: Float[Array, "k d"]  # relative to origin
    residuals: Float[Array, "blocks size d"]

    @property
    def weight(self) -> Float[Array, " k"]:
        """1 / n_c, and 0 for classes without samples."""
        counts = self.blocks.counts.astype(jnp.float32)
        return jnp.where(counts > 0, 1 / jnp.maximum(counts, 1), 0)


def centre_by_class(features: Float[Array, "n d"], labels: Int[Array, " n"], num_classes: int) -> CentredClasses:
    """Subtract class means before anything is multiplied: uncentred float32 second moments cancel."""
    features = features.astype(jnp.float32)
    blocks = class_blocks(labels, num_classes)
    origin = jnp.mean(features, axis=0)
    valid = blocks.valid[:, :, None]
    grouped = jnp.where(valid, (features - origin[None, :])[blocks.rows], 0)
    inverse_counts = 1 / jnp.maximum(blocks.counts.astype(jnp.float32), 1)
    mean = _scale(inverse_counts, sum_by_class(grouped.sum(axis=1), blocks))
    residuals = jnp.where(valid, grouped - mean[blocks.block_class][:, None, :], 0)
    return CentredClasses(blocks, origin, mean, residuals)


def moments_of(centred: CentredClasses) -> ClassMoments:
    """Class moments of centred samples: O(n d^2) operations, O(k d^2) memory for the covariances."""
    blocks, r = centred.blocks, centred.residuals
    squares = jnp.sum(r * r, axis=2)  # ||z - mu||^2

    def class_mean(block_sums: Array) -> Array:
        return _scale(centred.weight, sum_by_class(block_sums, blocks))

    variance = class_mean(squares.sum(axis=1))
    covariance = second_moments(centred, r)
    third = class_mean(jnp.einsum("bs,bsd->bd", squares, r, precision="highest"))
    # Rounded means leave residuals with a mean of about 1e-7 of the means' size. Only the third moment feels it to
    # first order: E (r-e)||r-e||^2 = E r||r||^2 - v e - 2 Sigma e + O(e^2).
    slip = class_mean(r.sum(axis=1))
    third -= _scale(variance, slip) + 2 * jnp.einsum("kde,ke->kd", covariance, slip, precision="highest")
    return ClassMoments(
        origin=centred.origin,
        count=blocks.counts.astype(jnp.float32),
        mean=centred.mean,
        variance=variance,
        fourth_moment=class_mean((squares**2).sum(axis=1)),
        third_moment=third,
        covariance=covariance,
    )


def second_moments(centred: CentredClasses, columns: Float[Array, "blocks size q"]) -> Float[Array, "k q q"]:
    """E[c c^T] within each class for any per-sample columns c; a scan over blocks, O(k q^2) memory."""
    k, q = centred.blocks.counts.shape[0], columns.shape[2]

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        owner, c = block
        return total.at[owner].add(jnp.dot(c.T, c, precision="highest")), None

    total, _ = jax.lax.scan(add, jnp.zeros((k, q, q), jnp.float32), (centred.blocks.block_class, columns))
    return _scale(centred.weight, total)


def _scale(weight: Float[Array, " k"], values: Float[Array, "k *rest"]) -> Float[Array, "k *rest"]:
    return weight.reshape((-1,) + (1,) * (values.ndim - 1)) * values
