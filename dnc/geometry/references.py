"""A few samples of each class, against which every query is held: what covariances do not tell of its distances.

Third moments along a query's own direction, and the distances to centroids of one, two or three shots, which are far
from normal, take the samples themselves. Up to `REFERENCES` of each class, drawn at random, stand for all of them; a
query is never its own reference. Centroids of m shots are those of m references that follow each other.
"""

import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.moments import inverse
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, Bool, Float, Int

REFERENCES = 256  # of a class
FEWEST = 3  # shots up to which centroids of references themselves are held against queries
_FEW_CLASSES = 32
_UNROLLED = 64  # comparisons in one operation
_QUANTILES, _LEGENDRE_NODES = 32, 8  # of a query's distance to a centroid of its own class, of few and many classes
ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)  # of a sum, relative to its terms
_SoFar: TypeAlias = tuple[Array, Array]  # products [q, t, b] over rivals; whether all have enough references [q, b]


@array_dataclass
class References:
    """Samples of each class, about the class mean."""

    rows: Int[Array, "k s"]  # among all samples
    weight: Float[Array, "k s"]  # 0 for slots that hold none
    centered: Float[Array, "k s d"]
    count: Int[Array, " k"]  # slots that hold one: the first
    shrink: Float[Array, "k s q"]  # mean of squared distances less that of the centroid, of 1 to q references
    square: Float[Array, "k s"]  # squared lengths
    cube: Float[Array, " k"]  # tr Sigma^3


@array_dataclass
class ReferenceTerms:
    """The rule with centroids of 1 to q = FEWEST references, nan where a class has too few samples."""

    right: Float[Array, "n q"]  # P(the nearest centroid is that of the query's class)
    farther: Float[Array, "n k q"]  # P(the centroid of c is farther than that of the query's class)

    def subset(self, classes: Int[Array, " w"]) -> "ReferenceTerms":
        """Of some of the classes: of more than two, it is not known how often just these are farther."""
        farther = self.farther[:, classes]
        right = jnp.sum(farther, axis=1) if len(classes) == 2 else jnp.full_like(self.right, jnp.nan)
        return ReferenceTerms(right, farther)


@array_dataclass
class FewShotRivals:
    """Rivals of which few references are held against a block of queries, but for those that are looked at closely.

    apart: ||x - z||^2. near: the classes that are looked at closely.
    """

    references: References
    apart: Float[Array, "k s b"]
    near: Int[Array, " u"]


def choose_references(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    center: Float[Array, "k d"],
    size: int,
) -> References:
    """At most `size` samples of each class, drawn at random; of a smaller size they are the first of the same."""
    n, k = labels.shape[0], center.shape[0]
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
    held = jnp.minimum(counts[:k], size)
    cube, square = jax.lax.map(_trace_of_cube, (centered, weight)), jnp.sum(centered**2, axis=2)
    return References(rows, weight, centered, held, shrink, square, cube)


def few_shot_shares(
    references: References,
    apart: Float[Array, "k s b"],
    weight: Float[Array, "k s b"],
    labels: Int[Array, " b"],
    others: FewShotRivals | None = None,
) -> ReferenceTerms:
    """From ||x - z||^2 and weights of the references z of every class; of many classes, of those near, beside others.

    P(right) is the mean over distances t to the own centroid of the product over rivals of P(farther than t). Of few
    classes, t takes 32 quantiles; of many, the nodes of a Gauss-Legendre rule, between the references' distances. A tie
    is an error: distances count as equal where float32 cannot tell them apart.
    """
    k, _, b = apart.shape
    quantiles, share_of_node = _nodes(k)
    own_apart, own_weight = (values[labels, :, jnp.arange(b)].T for values in (apart, weight))
    of_own = references.count[labels][None], references.shrink[labels].transpose(2, 1, 0)
    at_quantiles = functools.partial(_quantiles, quantiles=quantiles, smooth=k > _FEW_CLASSES)
    nodes = jax.lax.map(lambda own: at_quantiles(*own), _centroids(own_apart, own_weight, *of_own))

    def rivals(
        apart: Float[Array, "c s b"],
        weight: Float[Array, "c s #b"],
        references: tuple[Int[Array, " c"], Float[Array, "c s q"]],
        left_out: Bool[Array, "c #b"],
    ) -> tuple[_SoFar, Float[Array, "c q b"]]:
        """The product of P(farther than t) over the classes that are not left out, and whether they all have enough
        references; and each class's mean over t.
        """
        count, shrink = references
        to_centroid, share = _centroids(apart, weight, count[:, None, None], jnp.moveaxis(shrink, 2, 0)[..., None])
        values = to_centroid - ROUNDING * (apart[None] + to_centroid)

        def of_shots(of: tuple[Array, ...]) -> tuple[Float[Array, "t b"], Float[Array, "c b"]]:
            farther = _share_beyond(*of)
            return jnp.prod(farther, axis=0), jnp.sum(share_of_node[None, :, None] * farther, axis=1)

        share = jnp.where(left_out[None, :, None], 0, share)  # 1 in the product
        products, means = jax.lax.map(of_shots, (values, share, nodes))
        held = jnp.sum(weight > 0, axis=1)[None] >= 1 + jnp.arange(FEWEST)[:, None, None]
        enough = jnp.broadcast_to(jnp.all(held | left_out[None], axis=1), (FEWEST, b))
        return (products, enough), means.swapaxes(0, 1)

    own = labels[None] == jnp.arange(k, dtype=labels.dtype)[:, None]

    def next_rival(so_far: _SoFar, of_class: tuple[Array, ...]) -> tuple[_SoFar, Float[Array, "q b"]]:
        apart, weight, count, shrink, own = (of[None] for of in of_class)
        (products, enough), means = rivals(apart, weight, (count, shrink), own)
        return (so_far[0] * products, so_far[1] & enough), jnp.where(own, 0, means[0])

    if others is None:
        start = jnp.ones((FEWEST, len(quantiles), b)), jnp.ones((FEWEST, b), bool)
        classes = apart, weight, references.count, references.shrink, own
        (products, enough), means = jax.lax.scan(next_rival, start, classes)
    else:
        few = others.references
        (products, enough), means = rivals(apart, weight, (references.count, references.shrink), own)
        means = jnp.where(own[:, None], 0, means)
        is_near = jnp.zeros((len(few.count), 1), bool).at[others.near].set(True)
        (of_far, known), of_all = rivals(others.apart, few.weight[:, :, None], (few.count, few.shrink), is_near)
        products, enough, means = products * of_far, enough & known, of_all.at[others.near].set(means)
    enough = enough & (jnp.sum(own_weight > 0, axis=0)[None] >= 1 + jnp.arange(FEWEST)[:, None])
    right = jnp.sum(share_of_node[None, :, None] * products, axis=1)
    right, farther = (jnp.where(enough, values, jnp.nan) for values in (right, means))
    return ReferenceTerms(right.T, farther.transpose(2, 0, 1))


def _nodes(num_classes: int) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Quantiles of the distance to the own centroid, and what each counts."""
    if num_classes <= _FEW_CLASSES:
        nodes, shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES, np.full(_QUANTILES, 1 / _QUANTILES)
    else:
        nodes, shares = np.polynomial.legendre.leggauss(_LEGENDRE_NODES)
        nodes, shares = (nodes + 1) / 2, shares / 2
    return jnp.asarray(nodes, jnp.float32), jnp.asarray(shares, jnp.float32)


def _centroids(
    apart: Float[Array, "*k s b"],
    weight: Float[Array, "*k s #b"],
    count: Int[Array, "*#k 1 #b"],
    shrink: Float[Array, "q *k s #b"],
) -> tuple[Float[Array, "q *k s b"], Float[Array, "q *k s #b"]]:
    """Squared distances to the centroids of 1 to q references that follow each other, and the share of each."""

    def next_after_each(values: Float[Array, "*k s #b"]) -> Float[Array, "*k s #b"]:
        is_last = jax.lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 2) == count - 1
        return jnp.where(is_last, values[..., :1, :], jnp.roll(values, -1, axis=-2))

    def of_shots(so_far: tuple[Array, ...], of: tuple[Array, Array]) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        chance, total, following, distance = so_far
        m, shrink = of
        chance, total = chance * following, total + distance
        found = total / m - shrink, chance * inverse(jnp.sum(chance, axis=-2, keepdims=True))
        return (chance, total, next_after_each(following), next_after_each(distance)), found

    start = (weight > 0).astype(weight.dtype), jnp.zeros_like(apart), weight, apart
    return jax.lax.scan(of_shots, start, (jnp.arange(1, FEWEST + 1, dtype=apart.dtype), shrink))[1]


def _share_beyond(
    values: Float[Array, "c s b"], share: Float[Array, "c s #b"], thresholds: Float[Array, "t b"]
) -> Float[Array, "c t b"]:
    """Of the values, the share above each threshold: 1 exactly where all are.

    One value of all queries after the other, which a CPU compares many of at once.
    """

    def add(total: Array, value: tuple[Array, Array]) -> tuple[Array, None]:
        return total + jnp.where(value[0][:, None] > thresholds[None], 0, value[1][:, None]), None

    (c, s, b), t = values.shape, len(thresholds)
    total = jnp.zeros((c, t, b))
    if s <= _UNROLLED:
        for i in range(s):
            total, _ = add(total, (values[:, i], share[:, i]))
        return 1 - total
    return 1 - jax.lax.scan(add, total, (values.swapaxes(0, 1), share.swapaxes(0, 1)), unroll=8)[0]


def _quantiles(
    values: Float[Array, "s b"], share: Float[Array, "s b"], quantiles: Float[Array, " t"], smooth: bool
) -> Float[Array, "t b"]:
    """Values at these quantiles, or if `smooth`, linear between values in the middle of their shares."""
    ordered, share = jnp.where(share > 0, values, jnp.inf).T, share.T
    order = jnp.argsort(ordered, axis=1)
    ordered, share = (jnp.take_along_axis(x, order, axis=1) for x in (ordered, share))
    passed = jnp.cumsum(share, axis=1)
    if smooth:
        last = jnp.max(jnp.where(share > 0, ordered, 0), axis=1, keepdims=True)
        return jax.vmap(jnp.interp, (None, 0, 0))(quantiles, passed - share / 2, jnp.minimum(ordered, last)).T
    place = jnp.sum(passed[:, None, :] < quantiles[None, :, None], axis=2)
    place = jnp.minimum(place, jnp.sum(share > 0, axis=1, keepdims=True) - 1)
    return jnp.take_along_axis(ordered, place, axis=1).T


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
