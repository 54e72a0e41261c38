"""What every sample, taken as a query, sees of every class: its distance and how centroids of few shots blur it."""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int


@array_dataclass
class QueryGeometry:
    """For query x and class c, with b = x - mu_c: moments of ||x - mu^_c||^2 over centroids mu^_c follow from these.

    A query never meets itself among the shots: moments of its own class leave it out. Population moments (1/n).
    """

    labels: Int[ArrayLike, " n"]
    weight: Float[ArrayLike, " n"]  # share of the query in its class; 0 for samples that do not count
    squared_distance: Float[ArrayLike, "n k"]  # ||b||^2
    along: Float[ArrayLike, "n k"]  # b^T Sigma_c b
    skew: Float[ArrayLike, "n k"]  # b.t_c, t_c = E_{z~c}[(z - mu_c) ||z - mu_c||^2]
    own_variance: Float[ArrayLike, " n"]  # tr Sigma of the query's class without it
    own_fourth: Float[ArrayLike, " n"]  # E||z - mu||^4 of it
    own_square: Float[ArrayLike, " n"]  # tr Sigma^2 of it

    def subset(self, classes: Int[Array, " w"]) -> "QueryGeometry":
        """What the samples see of some of the classes; samples of the others get weight 0."""
        labels = jnp.asarray(self.labels)
        match = labels[:, None] == classes[None, :].astype(labels.dtype)
        by_class = [jnp.asarray(one)[:, classes] for one in (self.squared_distance, self.along, self.skew)]
        return dataclasses.replace(
            self,
            labels=jnp.argmax(match, axis=1).astype(labels.dtype),
            weight=jnp.where(jnp.any(match, axis=1), jnp.asarray(self.weight), 0),
            squared_distance=by_class[0],
            along=by_class[1],
            skew=by_class[2],
        )


def query_geometry(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    origin: Float[Array, " d"],
    mean: Float[Array, "k d"],
    third: Float[Array, "k d"],
    flat: Float[Array, "k f"],
    count: Float[Array, " k"],
    variance: Float[Array, " k"],
    fourth: Float[Array, " k"],
) -> QueryGeometry:
    """Query geometry from the samples and the class moments; `flat` holds the covariances (`symmetric.flat`).

    Costs n k d^2 operations. With a = x - mu of its own class, of N samples (sum of weights) of which x counts w, and
    h = a w/(N - w), b = a + h, sums over the others are sums over all, about the mean moved by h, less the query's:

        Sigma' = [N (Sigma + h h^T) - w b b^T] / (N - w),     v' = tr Sigma',
        t'     = [N (t + 2 Sigma h + (v + ||h||^2) h) - w b ||b||^2] / (N - w),
        M4'    = [N (M4 + 4 h.t + 4 h^T Sigma h + 2 v ||h||^2 + ||h||^4) - w ||b||^4] / (N - w).
    """
    x = jnp.where(weights[:, None] > 0, features.astype(jnp.float32) - origin[None, :], 0)

    def of_class(arguments: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        center, skewness, covariance = arguments
        b = x - center[None, :]
        sigma = symmetric.dense(symmetric.stripes_of(covariance, b.shape[1]))
        along = jnp.sum(jnp.dot(b, sigma, precision="highest") * b, axis=1)
        return jnp.sum(b * b, axis=1), along, jnp.dot(b, skewness, precision="highest")

    distance, along, skew = (value.T for value in jax.lax.map(of_class, (mean, third, flat)))

    own = labels[:, None] == jnp.arange(mean.shape[0], dtype=labels.dtype)[None, :]
    r, q, p = (jnp.sum(jnp.where(own, value, 0), axis=1) for value in (distance, along, skew))  # of a
    n, w, v, m4 = count[labels], weights, variance[labels], fourth[labels]
    square = jnp.sum(flat * flat, axis=1)[labels]  # tr Sigma^2
    rest = jnp.where(n > w, n - w, 1)
    s, g = w / rest, n / rest  # h = s a, b = g a; sums over all weigh g, the query s
    bb, hh = g**2 * r, s**2 * r
    own_along = g * (g**2 * q + (g * s * r) ** 2) - s * bb**2
    own_skew = g * (g * p + 2 * g * s * q + (v + hh) * g * s * r) - s * bb**2
    own_variance = g * (v + hh) - s * bb
    own_fourth = g * (m4 + 4 * s * p + 4 * s**2 * q + 2 * v * hh + hh**2) - s * bb**2
    own_square = g**2 * (square + 2 * s**2 * q + hh**2) - 2 * g * s * (g**2 * q + (g * s * r) ** 2) + (s * bb) ** 2
    share = jnp.where(n > w, w / jnp.where(n > 0, n, 1), 0)
    return QueryGeometry(
        labels=labels,
        weight=share,
        squared_distance=jnp.where(own, bb[:, None], distance),
        along=jnp.maximum(jnp.where(own, own_along[:, None], along), 0),
        skew=jnp.where(own, own_skew[:, None], skew),
        own_variance=jnp.maximum(own_variance, 0),
        own_fourth=jnp.maximum(own_fourth, 0),
        own_square=jnp.maximum(own_square, 0),
    )
