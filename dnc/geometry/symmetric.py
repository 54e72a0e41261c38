"""Sums of outer products w r r^T, only the upper block triangle: five eighths of the operations and of the memory."""

import itertools
import math

import jax
import jax.numpy as jnp

from dnc.geometry.sizes import sizes
from dnc.types import Array, Float

Stripes = tuple[Array, ...]  # stripe s holds rows a..b and columns a..d of the matrix


def edges(d: int) -> tuple[tuple[int, int], ...]:
    """First and last row of each stripe; small matrices have a single stripe."""
    count = 4 if d >= 256 else 1
    cuts = [round(stripe * d / count) for stripe in range(count + 1)]
    return tuple(itertools.pairwise(cuts))


def zeros(d: int) -> Stripes:
    return tuple(jnp.zeros((b - a, d - a), jnp.float32) for a, b in edges(d))


def add_outer_products(total: Stripes, r: Float[Array, "s d"], w: Float[Array, " s"]) -> Stripes:
    """total + sum_s w_s r_s r_s^T."""
    weighted = w[:, None] * r
    cuts = edges(r.shape[1])
    return tuple(
        t + jnp.dot(r[:, a:b].T, weighted[:, a:], precision="highest") for t, (a, b) in zip(total, cuts, strict=True)
    )


def dense(stripes: Stripes) -> Float[Array, "d d"]:
    """The whole matrix."""
    d = stripes[0].shape[1]
    upper = jnp.concatenate([jnp.pad(s, ((0, 0), (a, 0))) for s, (a, _) in zip(stripes, edges(d), strict=True)])
    return jnp.where(jnp.tri(d, dtype=bool), upper.T, upper)


def times(stripes: Stripes, x: Float[Array, " d"]) -> Float[Array, " d"]:
    """The matrix times a vector."""
    d = stripes[0].shape[1]
    result = jnp.zeros_like(x)
    for stripe, (a, b) in zip(stripes, edges(d), strict=True):
        result = result.at[a:b].add(jnp.dot(stripe, x[a:], precision="highest"))
        result = result.at[b:].add(jnp.dot(x[a:b], stripe[:, b - a :], precision="highest"))
    return result


def flat(stripes: Stripes) -> Float[Array, " f"]:
    """A vector whose inner products are those of the matrices, tr(S T): what is stored once counts twice."""
    values = jnp.concatenate(
        [(stripe * scale).reshape(-1) for stripe, scale in zip(stripes, _scales(stripes), strict=True)]
    )
    return jnp.pad(values, (0, -values.shape[0] % min(sizes().columns, values.shape[0])))


def length(d: int) -> int:
    """Of `flat` of a d x d matrix."""
    values = sum((b - a) * (d - a) for a, b in edges(d))
    return values + -values % min(sizes().columns, values)


def stripes_of(flat: Float[Array, " f"], d: int) -> Stripes:
    """The inverse of `flat` for a d x d matrix."""
    shapes = [(b - a, d - a) for a, b in edges(d)]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    parts = jnp.split(flat[: ends[-1]], ends[:-1])
    scaled = tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    return tuple(stripe / scale for stripe, scale in zip(scaled, _scales(scaled), strict=True))


def _scales(stripes: Stripes) -> list[Float[Array, "1 w"]]:
    """1 for columns of the diagonal block and sqrt 2 for those beyond it."""
    return [jnp.where(jnp.arange(s.shape[1]) < s.shape[0], 1, math.sqrt(2))[None, :] for s in stripes]


def gram(flats: Float[Array, "k f"], others: Float[Array, "w f"] | None = None) -> Float[Array, "k w"]:
    """Inner products of all pairs of `flat` vectors, with others or among themselves, a few columns at a time."""
    length = flats.shape[1]
    others, chunk = flats if others is None else others, min(sizes().columns, length)

    def add(index: Array, total: Float[Array, "k w"]) -> Float[Array, "k w"]:
        parts = (jax.lax.dynamic_slice_in_dim(x, index * chunk, chunk, axis=1) for x in (flats, others))
        first, second = parts
        return total + jnp.dot(first, second.T, precision="highest")

    return jax.lax.fori_loop(0, length // chunk, add, jnp.zeros((len(flats), len(others)), jnp.float32))
