"""Every sample as a query: its distance to every class, and the noise that centroids of few shots add to it."""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Float, Int

ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)  # of a sum, relative to its terms


@array_dataclass
class QueryGeometry:
    """For query x and class c, with b = x - mu_c: moments of ||x - mu^_c||^2 over centroids mu^_c follow from these.

    A query never meets itself among the shots: moments of its own class leave it out. Population moments (1/n).
    Own-class moments of order two and above are at least what rounds in their subtraction.
    """

    labels: Int[Array, " n"]
    weight: Float[Array, " n"]  # share of the query in its class; 0 for samples that do not count
    squared_distance: Float[Array, "n k"]  # ||b||^2
    along: Float[Array, "n k"]  # b^T Sigma_c b
    skew: Float[Array, "n k"]  # b.t_c, t_c = E_{z~c}[(z - mu_c) ||z - mu_c||^2]
    own_variance: Float[Array, " n"]  # tr Sigma of the query's class without it
    own_fourth: Float[Array, " n"]  # E||z - mu||^4 of it
    own_square: Float[Array, " n"]  # tr Sigma^2 of it
    length: Float[Array, " n"]  # of the query from the origin that all features were measured from

    def subset(self, classes: Int[Array, " w"]) -> "QueryGeometry":
        """The same for some of the classes; samples of the others get weight 0."""
        match = self.labels[:, None] == classes[None, :].astype(self.labels.dtype)
        return dataclasses.replace(
            self,
            labels=jnp.argmax(match, axis=1).astype(self.labels.dtype),
            weight=jnp.where(jnp.any(match, axis=1), self.weight, 0),
            squared_distance=self.squared_distance[:, classes],
            along=self.along[:, classes],
            skew=self.skew[:, classes],
        )


def query_geometry(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    moments: ClassMoments,
    slip: Float[Array, "k d"],
    flat: Float[Array, "k f"],
) -> QueryGeometry:
    """Query geometry from the samples and their class moments up to order four; the covariances, in the form of
    `symmetric.flat`, come apart as `flat`. `slip` is what rounding left of the class means, see `moments.mean_slip`.

    Costs n k d^2 operations. With a = x - mu of its own class, of N samples (sum of weights) of which x counts w, and
    h = a w/(N - w), b = a + h, sums over the others are sums over all, about the mean moved by h, less the query's:

        Sigma' = [N (Sigma + h h^T) - w b b^T] / (N - w),     v' = tr Sigma',
        t'     = [N (t + 2 Sigma h + (v + ||h||^2) h) - w b ||b||^2] / (N - w),
        M4'    = [N (M4 + 4 h.t + 4 h^T Sigma h + 2 v ||h||^2 + ||h||^4) - w ||b||^4] / (N - w).
    """
    assert moments.third_moment is not None
    assert moments.fourth_moment is not None
    x = jnp.where(weights[:, None] > 0, features.astype(jnp.float32) - moments.origin[None, :], 0)

    def of_class(arguments: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array]:
        center, left, skewness, covariance = arguments
        b = x - center[None, :] - left[None, :]
        sigma = symmetric.dense(symmetric.stripes_of(covariance, b.shape[1]))
        along = jnp.sum(jnp.dot(b, sigma, precision="highest") * b, axis=1)
        return jnp.sum(b * b, axis=1), along, jnp.dot(b, skewness, precision="highest")

    classes = (moments.mean, slip, moments.third_moment, flat)
    distance, along, skew = (value.T for value in jax.lax.map(of_class, classes))

    own = labels[:, None] == jnp.arange(len(flat), dtype=labels.dtype)[None, :]
    r, q, p = (jnp.sum(jnp.where(own, value, 0), axis=1) for value in (distance, along, skew))  # of a
    n, w, v, m4 = moments.count[labels], weights, moments.variance[labels], moments.fourth_moment[labels]
    square = jnp.sum(flat * flat, axis=1)[labels]  # tr Sigma^2
    rest = jnp.where(n > w, n - w, 1)
    s, g = w / rest, n / rest  # h = s a, b = g a; sums over all weigh g, the query s
    bb, hh = g**2 * r, s**2 * r
    taken, least = s * bb**2, ROUNDING * s * bb**2
    own_along = g * (g**2 * q + (g * s * r) ** 2) - taken
    own_skew = g * (g * p + 2 * g * s * q + (v + hh) * g * s * r) - taken - least
    own_variance = g * (v + hh) - s * bb
    own_fourth = g * (m4 + 4 * s * p + 4 * s**2 * q + 2 * v * hh + hh**2) - taken
    own_square = g**2 * (square + 2 * s**2 * q + hh**2) - 2 * g * s * (g**2 * q + (g * s * r) ** 2) + (s * bb) ** 2
    share = jnp.where(n > w, w / jnp.where(n > 0, n, 1), 0)
    return QueryGeometry(
        labels=labels,
        weight=share,
        squared_distance=jnp.where(own, bb[:, None], distance),
        along=jnp.where(own, jnp.maximum(own_along, least)[:, None], along),
        skew=jnp.where(own, own_skew[:, None], skew),
        own_variance=jnp.maximum(own_variance, 0),
        own_fourth=jnp.maximum(own_fourth, least),
        own_square=jnp.maximum(own_square, s * least),
        length=jnp.linalg.norm(x, axis=1),
    )
