"""A few samples of each class, against which every query is held: what covariances do not tell of its distances.

Third moments along a query's own direction, and the distances to centroids of one, two or three shots, which are far
from normal, take the samples themselves. Up to `REFERENCES` of each class, drawn at random, stand for all of them; a
query is never its own reference. Centroids of m shots are those of m references that follow each other.
"""

from collections.abc import Callable

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
_QUANTILES, _LEGENDRE_NODES = 32, 8  # of a query's distance to a centroid of its own class, of few and many classes
ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)  # of a sum, relative to its terms


@array_dataclass
class References:
    """Samples of each class, about the class mean."""

    rows: Int[Array, "k s"]  # among all samples
    weight: Float[Array, "k s"]  # 0 for slots that hold none
    centered: Float[Array, "k s d"]
    count: Int[Array, " k"]  # slots that hold one: the first
    shrink: Float[Array, "k s q"]  # mean of squared distances less that of the centroid, of 1 to q references
    cube: Float[Array, " k"]  # tr Sigma^3

    @property
    def square(self) -> Float[Array, "*k s"]:
        """Squared lengths."""
        return jnp.sum(self.centered**2, axis=-1)


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
    apart: Float[Array, "k b s"]
    near: Int[Array, " u"]


def choose_references(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    center: Float[Array, "k d"],
    size: int,
) -> References:
    """At most `size` samples of each class, drawn at random."""
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
    return References(rows, weight, centered, held, shrink, jax.lax.map(_trace_of_cube, (centered, weight)))


def few_shot_shares(
    references: References,
    apart: Float[Array, "k b s"],
    weight: Float[Array, "k b s"],
    labels: Int[Array, " b"],
    others: FewShotRivals | None = None,
) -> ReferenceTerms:
    """From ||x - z||^2 and weights of the references z of every class; of many classes, of those near, beside others.

    P(right) is the mean over distances t to the own centroid of the product over rivals of P(farther than t). Of few
    classes, t takes 32 quantiles; of many, the nodes of a Gauss-Legendre rule, between the references' distances. A tie
    is an error: distances count as equal where float32 cannot tell them apart.
    """
    k, b, _ = apart.shape
    quantiles, share_of_node = _nodes(k)
    place = labels, jnp.arange(b)
    count, shrink = references.count[labels][:, None], references.shrink[labels]
    nodes = [
        _quantiles(to_centroid, share, quantiles, smooth=k > _FEW_CLASSES)
        for to_centroid, share in _centroids(apart[place], weight[place], count, shrink)
    ]

    def rival(of_class: tuple[Array, ...]) -> tuple[Float[Array, "b q t"], Float[Array, "b q"], Bool[Array, "b q"]]:
        """P(farther than t), 1 for the own class; its mean, 0 for the own; whether there are enough references."""
        c, apart, weight, count, shrink = of_class
        held = jnp.sum(weight > 0, axis=1)[:, None] >= 1 + jnp.arange(FEWEST)[None, :]
        farther = []
        for (to_centroid, share), threshold in zip(_centroids(apart, weight, count, shrink[None]), nodes, strict=True):
            farther.append(_share_beyond(to_centroid - ROUNDING * (apart + to_centroid), share, threshold))
        farther, own = jnp.stack(farther, axis=1), (labels == c.astype(labels.dtype))[:, None]
        mean = jnp.dot(farther, share_of_node, precision="highest")
        return jnp.where(own[:, :, None], 1, farther), jnp.where(own, 0, mean), held

    def next_rival(so_far: tuple[Array, Array], of_class: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        farther, mean, held = rival(of_class)
        return (so_far[0] * farther, so_far[1] & held), mean

    classes = jnp.arange(k, dtype=jnp.int32), apart, weight, references.count, references.shrink
    start = jnp.ones((b, FEWEST, len(quantiles))), jnp.ones((b, FEWEST), bool)
    if others is None:
        (product, enough), farther = jax.lax.scan(next_rival, start, classes)
    else:
        (product, enough), farther = _at_once(rival, classes, start, None)
        weight = jnp.broadcast_to(others.references.weight[:, None], others.apart.shape)
        of_all = jnp.full(len(weight), -1), others.apart, weight, others.references.count, others.references.shrink
        (product, enough), of_far = _at_once(rival, of_all, (product, enough), others.near)
        farther = of_far.at[others.near].set(farther)
    right = jnp.dot(product, share_of_node, precision="highest")
    farther = jnp.where(enough[:, None], farther.swapaxes(0, 1), jnp.nan)
    return ReferenceTerms(jnp.where(enough, right, jnp.nan), farther)


def _at_once(
    rival: Callable[[tuple[Array, ...]], tuple[Array, Array, Array]],
    classes: tuple[Array, ...],
    so_far: tuple[Float[Array, "b q t"], Bool[Array, "b q"]],
    left_out: Int[Array, " u"] | None,
) -> tuple[tuple[Float[Array, "b q t"], Bool[Array, "b q"]], Float[Array, "k b q"]]:
    """Rivals in few operations; those left out do not count."""
    farther, mean, held = jax.vmap(rival)(classes)
    if left_out is not None:
        farther, held = farther.at[left_out].set(1), held.at[left_out].set(True)
    return (so_far[0] * jnp.prod(farther, axis=0), so_far[1] & jnp.all(held, axis=0)), mean


def _nodes(num_classes: int) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Quantiles of the distance to the own centroid, and what each counts."""
    if num_classes <= _FEW_CLASSES:
        nodes, shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES, np.full(_QUANTILES, 1 / _QUANTILES)
    else:
        nodes, shares = np.polynomial.legendre.leggauss(_LEGENDRE_NODES)
        nodes, shares = (nodes + 1) / 2, shares / 2
    return jnp.asarray(nodes, jnp.float32), jnp.asarray(shares, jnp.float32)


def _centroids(
    apart: Float[Array, "b s"], weight: Float[Array, "b s"], count: Int[Array, "*#b"], shrink: Float[Array, "#b s q"]
) -> list[tuple[Float[Array, "b s"], Float[Array, "b s"]]]:
    """Squared distances to the centroids of 1 to q references that follow each other, and the share of each."""
    chance, total, found = (weight > 0).astype(weight.dtype), jnp.zeros_like(apart), []
    following, distance = weight, apart
    for m in range(1, FEWEST + 1):
        chance, total = chance * following, total + distance
        found.append((total / m - shrink[..., m - 1], chance * inverse(jnp.sum(chance, axis=1, keepdims=True))))
        following, distance = _next(following, count), _next(distance, count)
    return found


def _share_beyond(
    values: Float[Array, "b s"], share: Float[Array, "b s"], thresholds: Float[Array, "b t"]
) -> Float[Array, "b t"]:
    """Of the values, the share above each threshold: 1 exactly where all are.

    One value of all queries after the other, which a CPU compares many of at once.
    """

    def add(total: Array, value: tuple[Array, Array]) -> tuple[Array, None]:
        return total + jnp.where(value[0][None] > thresholds.T, 0, value[1][None]), None

    return 1 - jax.lax.scan(add, jnp.zeros_like(thresholds.T), (values.T, share.T), unroll=8)[0].T


def _next(values: Float[Array, "b s"], count: Int[Array, "*#b"]) -> Float[Array, "b s"]:
    """Of the reference after each, around the class."""
    is_last = jnp.arange(values.shape[1])[None, :] == count - 1
    return jnp.where(is_last, values[:, :1], jnp.roll(values, -1, axis=1))


def _quantiles(
    values: Float[Array, "b s"], share: Float[Array, "b s"], quantiles: Float[Array, " t"], smooth: bool
) -> Float[Array, "b t"]:
    """Values at these quantiles, or if `smooth`, linear between values in the middle of their shares."""
    ordered = jnp.where(share > 0, values, jnp.inf)
    order = jnp.argsort(ordered, axis=1)
    ordered, share = (jnp.take_along_axis(x, order, axis=1) for x in (ordered, share))
    passed = jnp.cumsum(share, axis=1)
    if smooth:
        last = jnp.max(jnp.where(share > 0, ordered, 0), axis=1, keepdims=True)
        return jax.vmap(jnp.interp, (None, 0, 0))(quantiles, passed - share / 2, jnp.minimum(ordered, last))
    place = jnp.sum(passed[:, None, :] < quantiles[None, :, None], axis=2)
    return jnp.take_along_axis(ordered, jnp.minimum(place, jnp.sum(share > 0, axis=1, keepdims=True) - 1), axis=1)


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
