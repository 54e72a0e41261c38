"""Classes that are not near a block of queries: few references of each, and covariances by few directions."""

import functools

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.leading import Leading, coarser, leading_of_gram
from dnc.geometry.moments import inverse
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.references import References
from dnc.types import Array, Float

FAR_RANK = 8  # eigenvectors
FAR_REFERENCES = 8


@array_dataclass
class FarClasses:
    """What b.v tells of every class for a few vectors v, with b = x - mu of a query x; the first are the references.

    b^T Sigma b = sum share (b.v)^2 + rest ||b||^2, and ||Sigma b||^2 is about sum smear (b.v)^2: without what the rest
    adds and, of samples, without products of two of them.
    """

    vectors: Float[Array, "k r d"] | None  # None: those are the class's samples, which its references are
    offset: Float[Array, "k r"]  # mu.v
    share: Float[Array, "k r"]
    smear: Float[Array, "k r"]
    rest: Float[Array, " k"]
    most: Float[Array, " k"]  # in place of `rest`, for an upper bound
    references: References  # few of each


def far_classes(
    covariance: Float[Array, "k f"] | Leading | None,
    references: References,
    few: References,
    center: Float[Array, "k d"],
) -> FarClasses:
    """By the largest eigenvectors of each covariance, flat or of its leading ones, or where it is None, by all of the
    class's samples.
    """
    if covariance is None:
        vectors, none = references.centered, jnp.zeros(len(center))
        share = references.weight * inverse(jnp.sum(references.weight, axis=1, keepdims=True))
        smear, rest, most = share**2 * references.square, none, none
    else:
        found = jax.lax.map(functools.partial(_leading, dimension=center.shape[1]), covariance)
        vectors, values = jnp.concatenate([few.centered, found.factor], axis=1), jnp.sum(found.factor**2, axis=2)
        share, smear = (jnp.pad(of, ((0, 0), (few.square.shape[1], 0))) for of in (jnp.ones_like(values), values))
        rest, most = found.rest, found.most
    offset = jax.lax.map(lambda of: jnp.dot(of[0], of[1], precision="highest"), (vectors, center))
    return FarClasses(None if covariance is None else vectors, offset, share, smear, rest, most, few)


def _leading(covariance: Float[Array, " f"] | Leading, dimension: int) -> Leading:
    if isinstance(covariance, Leading):
        return coarser(covariance, FAR_RANK)
    values, vectors = jnp.linalg.eigh(symmetric.dense(symmetric.stripes_of(covariance, dimension)))
    root = jnp.sqrt(jnp.maximum(values, 0))
    return leading_of_gram(jnp.diag(root**2), root[:, None] * vectors.T, FAR_RANK)
