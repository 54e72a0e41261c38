"""A few samples of each class, against which every query is held: what covariances do not tell of its distances.

Third moments along a query's own direction, and the distances to centroids of one, two or three shots, which are far
from normal, take the samples themselves. Up to `REFERENCES` of each class, drawn at random, stand for all of them; a
query is never its own reference. Centroids of m shots are those of m references that follow each other.
"""

import jax
import jax.numpy as jnp

from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.moments import inverse
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Bool, Float, Int

REFERENCES = 256  # of a class
FEWEST = 3  # shots up to which centroids of references themselves are held against queries
_NODES = 32  # quantiles of a query's distance to one sample of its own class
ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)  # of a sum, relative to its terms


@array_dataclass
class References:
    """Samples of each class, about the class mean."""

    rows: Int[Array, "k s"]  # among all samples
    weight: Float[Array, "k s"]  # 0 for slots that hold none
    centered: Float[Array, "k s d"]
    following: Int[Array, "k s q"]  # slots of the references from each one on, around the class
    shrink: Float[Array, "k s q"]  # mean of squared distances less that of the centroid, of 1 to q references
    cube: Float[Array, " k"]  # tr Sigma^3

    @property
    def square(self) -> Float[Array, "k s"]:
        """Squared lengths."""
        return jnp.sum(self.centered**2, axis=2)


@array_dataclass
class ReferenceTerms:
    """For query x and class c, with b = x - mu_c and a = z - mu_c over the references z of c.

    `right` and `farther` are of centroids of 1 to q = FEWEST shots, nan where a class has too few samples.
    """

    cubic: Float[Array, "n k"]  # E[(b.a)^3]
    mixed: Float[Array, "n k"]  # E[(b.a)^2 ||a||^2]
    right: Float[Array, "n q"]  # P(the nearest centroid is of the query's class)
    farther: Float[Array, "n k q"]  # P(the centroid of c is farther than that of the query's class)


def choose_references(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    center: Float[Array, "k d"],
) -> References:
    """At most `REFERENCES` samples of each class and at most four times as many as a class has on average."""
    n, k = labels.shape[0], center.shape[0]
    size = min(REFERENCES, n, 4 * -(-n // k))
    counted = jnp.where(weights > 0, labels, k).astype(jnp.int32)
    counts = jnp.bincount(counted, length=k + 1)
    order, _ = shuffled_classes(jax.random.key(0), counted, counts)
    starts = jnp.cumsum(counts) - counts
    slots = jnp.arange(size)
    taken = slots[None, :] < counts[:k, None]
    rows = order[jnp.minimum(starts[:k, None] + slots[None, :], n - 1)]
    weight = jnp.where(taken, weights[rows], 0)
    centered = jnp.where(taken[:, :, None], features[rows].astype(jnp.float32) - center[:, None, :], 0)
    ahead = slots[None, :, None] + jnp.arange(FEWEST)[None, None, :]
    following = ahead % jnp.maximum(jnp.minimum(counts[:k], size), 1)[:, None, None]
    shrink = jax.lax.map(_shrinkage, (centered, following))
    return References(rows, weight, centered, following, shrink, jax.lax.map(_trace_of_cube, (centered, weight)))


def reference_terms(
    references: References,
    products: Float[Array, "b k s"],
    squares: Float[Array, "b k s"],
    weight: Float[Array, "b k s"],
    distance: Float[Array, "b k"],
    own: Bool[Array, "b k"],
) -> ReferenceTerms:
    """From b.a, ||a||^2 and weights of the references, and ||b||^2, all about means without the query.

    A tie is an error: distances count as equal where float32 cannot tell them apart.
    """
    share = weight * inverse(jnp.sum(weight, axis=2, keepdims=True))
    second = share * products**2
    apart = jnp.maximum(distance[:, :, None] - 2 * products + squares, 0)  # ||x - z||^2
    held = jnp.sum(weight > 0, axis=2).astype(apart.dtype)

    def one_more(
        so_far: tuple[Float[Array, "b k s"], Float[Array, "b k s"]], shot: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """P of the rule with m shots; `so_far` are products of weights and sums of distances of m - 1 references."""
        (chance, total), (m, following, shrink) = so_far, shot
        chance = chance * jnp.take_along_axis(weight, following[None], axis=2)
        total = total + jnp.take_along_axis(apart, following[None], axis=2)
        enough = jnp.all(held >= m, axis=1)
        return (chance, total), _nearest(total / m - shrink[None], chance, apart, enough, own)

    shots = jnp.arange(1, FEWEST + 1, dtype=apart.dtype)
    each = shots, jnp.moveaxis(references.following, 2, 0), jnp.moveaxis(references.shrink, 2, 0)
    _, (right, farther) = jax.lax.scan(one_more, (jnp.ones_like(weight), jnp.zeros_like(apart)), each)
    return ReferenceTerms(
        cubic=jnp.sum(second * products, axis=2),
        mixed=jnp.sum(second * squares, axis=2),
        right=jnp.moveaxis(right, 0, -1),
        farther=jnp.moveaxis(farther, 0, -1),
    )


def _nearest(
    to_centroid: Float[Array, "b k s"],
    chance: Float[Array, "b k s"],
    apart: Float[Array, "b k s"],
    enough: Bool[Array, " b"],
    own: Bool[Array, "b k"],
) -> tuple[Float[Array, " b"], Float[Array, "b k"]]:
    """P(own centroid nearest) and P(another one farther than it), over independent centroids of each class."""
    share = chance * inverse(jnp.sum(chance, axis=2, keepdims=True))
    to_own, share_own = (jnp.sum(jnp.where(own[:, :, None], values, 0), axis=1) for values in (to_centroid, share))
    order = jnp.argsort(jnp.where(share_own > 0, to_own, jnp.inf), axis=1)
    passed = jnp.cumsum(jnp.take_along_axis(share_own, order, axis=1), axis=1)
    quantiles = (jnp.arange(_NODES, dtype=passed.dtype) + 0.5) / _NODES
    place = jnp.sum(passed[:, None, :] < quantiles[None, :, None], axis=2)
    place = jnp.take_along_axis(order, jnp.minimum(place, order.shape[1] - 1), axis=1)
    nodes = jnp.take_along_axis(to_own, place, axis=1)
    rounding = ROUNDING * (apart + to_centroid)

    def beyond(threshold: Float[Array, " b"]) -> Float[Array, "b k"]:
        return jnp.sum(jnp.where(to_centroid - rounding > threshold[:, None, None], share, 0), axis=2)

    farther = jax.lax.map(beyond, nodes.T)  # [nodes, b, k]
    right = jnp.mean(jnp.prod(jnp.where(own[None], 1, farther), axis=2), axis=0)
    farther = jnp.where(own, 0, jnp.mean(farther, axis=0))
    return jnp.where(enough, right, jnp.nan), jnp.where(enough[:, None], farther, jnp.nan)


def _shrinkage(arguments: tuple[Float[Array, "s d"], Int[Array, "s q"]]) -> Float[Array, "s q"]:
    """(1/m^2) sum over pairs of ||z_s - z_t||^2, of the first m = 1 to q references from each one on."""
    centered, following = arguments
    total, steps = jnp.zeros(len(centered)), []
    for m in range(following.shape[1]):
        last = centered[following[:, m]]
        for before in range(m):
            total = total + jnp.sum((last - centered[following[:, before]]) ** 2, axis=1)
        steps.append(total / (m + 1) ** 2)
    return jnp.stack(steps, axis=1)


def _trace_of_cube(arguments: tuple[Float[Array, "s d"], Float[Array, " s"]]) -> Float[Array, ""]:
    """tr Sigma^3 = E[(a.b)(b.c)(c.a)] over three different references."""
    centered, weight = arguments
    gram = jnp.dot(centered, centered.T, precision="highest") * (1 - jnp.eye(len(weight)))
    gram = gram * jnp.sqrt(weight[:, None] * weight[None, :])
    cube = jnp.sum(jnp.dot(gram, gram, precision="highest") * gram)
    first, second, third = (jnp.sum(weight**power) for power in (1, 2, 3))
    return jnp.maximum(cube * inverse(first**3 - 3 * first * second + 2 * third), 0)
