"""Covariances by their leading eigenvectors: quadratic forms in r d operations, with a bound on what is left out."""

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Float

RANK = 64  # of the factors that queries are held against
_SPARE = 8  # more directions than are asked for, in the iteration
_ITERATIONS = 4
_SMALLEST = 1e-6  # eigenvalues below this share of the largest are rounding
_OPERATIONS = 2e11  # k d^3, up to which the bound on the rest is made from its square


@array_dataclass
class Leading:
    """Sigma = F^T F + R of each class, F of r rows, R positive semidefinite.

    rest: tr R / d, what a direction at random has of R. most: at least R's largest eigenvalue.
    """

    factor: Float[Array, "*k r d"]
    rest: Float[Array, "*k"]
    most: Float[Array, "*k"]


def leading_of_gram(gram: Float[Array, "s s"], samples: Float[Array, "s d"], rank: int) -> Leading:
    """Of the covariance A^T A with A A^T = gram, A = `samples`; exact eigenvectors."""
    d = samples.shape[1]
    values, vectors = jnp.linalg.eigh(gram)  # ascending
    inner = max(0, len(gram) - rank)
    factor = jnp.dot(vectors[:, inner:].T, samples, precision="highest")
    rest = jnp.maximum(jnp.sum(values[:inner]), 0) / d
    most = jnp.maximum(values[inner - 1], 0) if inner else jnp.zeros(())
    return Leading(factor, rest, most + _SMALLEST * jnp.maximum(values[-1], 0))


def coarser(found: Leading, rank: int) -> Leading:
    """The same with fewer of its rows, the largest."""
    inner = max(0, len(found.factor) - rank)
    left, kept = found.factor[:inner], found.factor[inner:]
    if not inner:
        return found
    most = jnp.max(jnp.linalg.eigvalsh(jnp.dot(left, left.T, precision="highest")))
    rest = found.rest + jnp.sum(left**2) / left.shape[1]
    return Leading(kept, rest, found.most + (1 + _SMALLEST) * most)


def leading(total: symmetric.Stripes, num_classes: int, rank: int) -> Leading:
    """Of one of `num_classes` covariances.

    By subspace iteration (Halko, Martinsson and Tropp 2011). With Q its basis, the Nystrom approximation
    F^T F = Sigma Q (Q^T Sigma Q)^-1 Q^T Sigma leaves a positive semidefinite rest for any Q: that the iteration has not
    converged costs tightness, never validity. The largest eigenvalue of R is at most (tr R^4)^(1/4), or where that
    takes long, (tr R^2)^(1/2).
    """
    sigma = symmetric.dense(total)
    d = sigma.shape[0]
    q = jax.random.normal(jax.random.key(0), (d, min(d, rank + _SPARE)))
    for _ in range(_ITERATIONS):
        q = jnp.linalg.qr(jnp.dot(sigma, q, precision="highest"))[0]
    image = jnp.dot(sigma, q, precision="highest")
    values, vectors = jnp.linalg.eigh(jnp.dot(q.T, image, precision="highest"))  # ascending
    values, vectors = values[-rank:], vectors[:, -rank:]
    kept = values > _SMALLEST * values[-1]
    root = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
    factor = root[:, None] * jnp.dot(vectors.T, image.T, precision="highest")
    rest = sigma - jnp.dot(factor.T, factor, precision="highest")
    if num_classes * float(d) ** 3 <= _OPERATIONS:
        most = jnp.sqrt(jnp.linalg.norm(jnp.dot(rest, rest, precision="highest")))
    else:
        most = jnp.linalg.norm(rest)
    return Leading(factor, jnp.maximum(jnp.trace(rest), 0) / d, most)
