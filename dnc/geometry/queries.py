"""Every sample as a query: its distance to every class, and the noise that centroids of few shots add to it."""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.references import ROUNDING, References, ReferenceTerms, choose_references, reference_terms
from dnc.types import Array, Bool, Float, Int

_BLOCK_ELEMENTS = 2**24  # products with references held at once
_BLOCK_ROWS = 512  # queries at once, where that allows as many


@array_dataclass
class QueryGeometry:
    """For query x and class c, with b = x - mu_c: moments of ||x - mu^_c||^2 over centroids mu^_c follow from these.

    A query never meets itself among the shots: moments of its own class leave it out. Population moments (1/n).
    Own-class moments of order two and above are at least what rounds in their subtraction.
    """

    labels: Int[Array, " n"]
    weight: Float[Array, " n"]  # share of the query in its class; 0 for samples that do not count
    left: Float[Array, " n"]  # samples of its class without it, or the sum of their weights
    squared_distance: Float[Array, "n k"]  # ||b||^2
    along: Float[Array, "n k"]  # b^T Sigma_c b
    skew: Float[Array, "n k"]  # b.t_c, t_c = E_{z~c}[(z - mu_c) ||z - mu_c||^2]
    smeared: Float[Array, "n k"]  # ||Sigma_c b||^2
    own_variance: Float[Array, " n"]  # tr Sigma of the query's class without it
    own_fourth: Float[Array, " n"]  # E||z - mu||^4 of it
    own_square: Float[Array, " n"]  # tr Sigma^2 of it
    length: Float[Array, " n"]  # of the query from the origin that all features were measured from
    references: ReferenceTerms  # what takes single samples of the classes

    def subset(self, classes: Int[Array, " w"]) -> "QueryGeometry":
        """The same for some of the classes; samples of the others get weight 0."""
        match = self.labels[:, None] == classes[None, :].astype(self.labels.dtype)
        labels, few = jnp.argmax(match, axis=1), self.references
        farther = few.farther[:, classes]
        # Two classes have one rival; of more, `right` does not tell how often just these are farther.
        right = jnp.sum(farther, axis=1) if len(classes) == 2 else jnp.full_like(few.right, jnp.nan)
        return dataclasses.replace(
            self,
            labels=labels.astype(self.labels.dtype),
            weight=jnp.where(jnp.any(match, axis=1), self.weight, 0),
            squared_distance=self.squared_distance[:, classes],
            along=self.along[:, classes],
            skew=self.skew[:, classes],
            smeared=self.smeared[:, classes],
            references=ReferenceTerms(few.cubic[:, classes], few.mixed[:, classes], right, farther),
        )


def query_geometry(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    moments: ClassMoments,
    slip: Float[Array, "k d"],
    flat: Float[Array, "k f"],
) -> tuple[QueryGeometry, Float[Array, " k"]]:
    """Query geometry from the samples and their class moments up to order four, and tr Sigma^3 of every class.

    The covariances come as `flat`, in the form of `symmetric.flat`. `slip` is what rounding left of the class means,
    see `moments.mean_slip`. Costs n k d (d + s) operations for s references of a class; all but [n, k] values in blocks
    of rows.
    """
    n = labels.shape[0]
    center = moments.mean + slip
    origin = moments.origin[None, :]
    references = choose_references(features, labels, weights, center + origin)
    size = min(n, _BLOCK_ROWS, max(1, _BLOCK_ELEMENTS // references.weight.size))
    padding = -n % size

    def of_block(rows: Int[Array, " b"]) -> QueryGeometry:
        w = jnp.where(rows < n, weights[rows], 0)
        x = jnp.where(w[:, None] > 0, features[rows].astype(jnp.float32) - origin, 0)
        return _of_rows(x, jnp.minimum(rows, n - 1), labels[rows], w, moments, center, flat, references)

    blocks = jax.lax.map(of_block, jnp.arange(n + padding).reshape(-1, size))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], blocks), references.cube


def _of_rows(
    x: Float[Array, "b d"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    moments: ClassMoments,
    center: Float[Array, "k d"],
    flat: Float[Array, "k f"],
    references: References,
) -> QueryGeometry:
    """Query geometry of some rows.

    With a = x - mu of its own class, of N samples (sum of weights) of which x counts w, and h = a w/(N - w), b = a + h,
    sums over the others are sums over all, about the mean moved by h, less the query's:

        Sigma' = [N (Sigma + h h^T) - w b b^T] / (N - w),     v' = tr Sigma',
        t'     = [N (t + 2 Sigma h + (v + ||h||^2) h) - w b ||b||^2] / (N - w),
        M4'    = [N (M4 + 4 h.t + 4 h^T Sigma h + 2 v ||h||^2 + ||h||^4) - w ||b||^4] / (N - w).
    """
    assert moments.third_moment is not None
    assert moments.fourth_moment is not None

    def of_class(arguments: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        mean, skewness, covariance, others = arguments
        b = x - mean[None, :]
        sigma = symmetric.dense(symmetric.stripes_of(covariance, b.shape[1]))
        moved = jnp.dot(b, sigma, precision="highest")
        along, smeared = jnp.sum(moved * b, axis=1), jnp.sum(moved * moved, axis=1)
        products = jnp.dot(b, others.T, precision="highest")
        return jnp.sum(b * b, axis=1), along, jnp.dot(b, skewness, precision="highest"), smeared, products

    classes = (center, moments.third_moment, flat, references.centered)
    distance, along, skew, smeared, products = (value.swapaxes(0, 1) for value in jax.lax.map(of_class, classes))

    own = labels[:, None] == jnp.arange(len(flat), dtype=labels.dtype)[None, :]
    # of a
    r, q, p, moved = (jnp.sum(jnp.where(own, value, 0), axis=1) for value in (distance, along, skew, smeared))
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
    turned = g * s * (s - g)  # Sigma' = g Sigma + turned a a^T
    own_smeared = g**2 * (g**2 * moved + turned * r * (2 * g * q + turned * r**2))
    share = jnp.where(n > w, w / jnp.where(n > 0, n, 1), 0)
    squared_distance = jnp.where(own, bb[:, None], distance)

    mine = own[:, :, None]
    squares = references.square[None] + jnp.where(mine, (2 * s[:, None] * _own(products, own))[:, None, :], 0)
    squares = squares + jnp.where(own, hh[:, None], 0)[:, :, None]
    products = jnp.where(mine, g[:, None, None] * (products + (s * r)[:, None, None]), products)
    others = jnp.where(references.rows[None] == rows[:, None, None], 0, references.weight[None])
    return QueryGeometry(
        labels=labels,
        weight=share,
        left=rest,
        squared_distance=squared_distance,
        along=jnp.where(own, jnp.maximum(own_along, least)[:, None], along),
        skew=jnp.where(own, own_skew[:, None], skew),
        smeared=jnp.where(own, jnp.maximum(own_smeared, 0)[:, None], smeared),
        own_variance=jnp.maximum(own_variance, 0),
        own_fourth=jnp.maximum(own_fourth, least),
        own_square=jnp.maximum(own_square, s * least),
        length=jnp.linalg.norm(x, axis=1),
        references=reference_terms(references, products, squares, others, squared_distance, own),
    )


def _own(values: Float[Array, "b k s"], own: Bool[Array, "b k"]) -> Float[Array, "b s"]:
    """Of the query's own class."""
    return jnp.sum(jnp.where(own[:, :, None], values, 0), axis=1)
