"""The geometry of a block of queries: each one's distance to every class, and the noise that few shots add to it.

Of many classes, only those near the block are looked at closely. Of the others, third cumulants are left out, and with
one to three shots few references stand for all.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.geometry import symmetric
from dnc.geometry.far_classes import FarClasses
from dnc.geometry.leading import Leading
from dnc.geometry.moments import inverse
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.references import ROUNDING, FewShotRivals, References, ReferenceTerms, few_shot_shares
from dnc.geometry.sizes import sizes
from dnc.types import Array, Bool, Float, Int

NEAREST = 31  # rivals of a query that are looked at closely, where there are more


def has_far(num_classes: int) -> bool:
    """Whether there are so many classes that only those near a block of queries are held against it closely."""
    return num_classes > 2 * sizes().near


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
    most: Float[Array, "n k"] | None  # at least that, where `along` is not exact
    skew: Float[Array, "n k"]  # b.t_c, t_c = E_{z~c}[(z - mu_c) ||z - mu_c||^2]
    smeared: Float[Array, "n k"]  # ||Sigma_c b||^2
    cubic: Float[Array, "n k"]  # E[(b.a)^3], a = z - mu_c over the references z of c
    mixed: Float[Array, "n k"]  # E[(b.a)^2 ||a||^2] over the same
    own_variance: Float[Array, " n"]  # tr Sigma of the query's class without it
    own_fourth: Float[Array, " n"]  # E||z - mu||^4 of it
    own_square: Float[Array, " n"]  # tr Sigma^2 of it
    length: Float[Array, " n"]  # of the query from the origin that all features were measured from
    references: ReferenceTerms  # the rule with one to three shots

    @property
    def counted(self) -> Bool[Array, " n"]:
        """The samples that count."""
        return self.weight > 0

    def subset(self, classes: Int[Array, " w"]) -> "QueryGeometry":
        """The same for some of the classes; samples of the others get weight 0."""
        match = self.labels[:, None] == classes[None, :].astype(self.labels.dtype)
        pairs = ("squared_distance", "along", "most", "skew", "smeared", "cubic", "mixed")
        kept = {name: values[:, classes] for name in pairs if (values := getattr(self, name)) is not None}
        return dataclasses.replace(
            self,
            labels=jnp.argmax(match, axis=1).astype(self.labels.dtype),
            weight=jnp.where(jnp.any(match, axis=1), self.weight, 0),
            references=self.references.subset(classes),
            **kept,
        )


@array_dataclass
class Samples:
    """Covariances of classes whose references are all of their samples: A^T diag(weight) A, by A A^T."""

    gram: Float[Array, "*k s s"]


@array_dataclass
class QueryClasses:
    """What queries are held against, of each class. Population moments, about the mean."""

    count: Float[Array, " k"]  # or sum of weights
    center: Float[Array, "k d"]  # its mean, from the source's origin, without what rounded in it
    variance: Float[Array, " k"]
    third_moment: Float[Array, "k d"]
    fourth_moment: Float[Array, " k"]
    square: Float[Array, " k"]  # tr Sigma^2
    references: References
    covariance: Samples | Float[Array, "k f"] | Leading  # of few samples; flat; where that takes long, bounded
    far: FarClasses | None  # where there are so many classes that only the near are held against queries like this


def of_rows(
    x: Float[Array, "b d"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    classes: QueryClasses,
) -> QueryGeometry:
    """Query geometry of some rows.

    With a = x - mu of its own class, of N samples (sum of weights) of which x counts w, and h = a w/(N - w), b = a + h,
    sums over the others are sums over all, about the mean moved by h, less the query's:

        Sigma' = [N (Sigma + h h^T) - w b b^T] / (N - w),     v' = tr Sigma',
        t'     = [N (t + 2 Sigma h + (v + ||h||^2) h) - w b ||b||^2] / (N - w),
        M4'    = [N (M4 + 4 h.t + 4 h^T Sigma h + 2 v ||h||^2 + ||h||^4) - w ||b||^4] / (N - w).

    Of many classes only the nearest of the block are looked at like this: of the others, third cumulants are left out,
    and b^T Sigma b is made of all samples or, of large classes, of a few eigenvectors with an upper bound.
    """
    if classes.far is not None and has_far(len(classes.count)):
        return _with_far(x, rows, labels, weights, classes, classes.far)
    return _of_classes(x, rows, labels, weights, classes, jnp.arange(len(classes.count), dtype=jnp.int32))


def _with_far(
    x: Float[Array, "b d"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    classes: QueryClasses,
    far: FarClasses,
) -> QueryGeometry:
    """The geometry of all classes, of which the block's own and those nearest to most of its queries are looked at."""
    vectors = classes.references.centered if far.vectors is None else far.vectors
    products = jnp.dot(vectors.reshape(-1, x.shape[1]), x.T, precision="highest")
    products = products.reshape(*vectors.shape[:2], len(x)) - far.offset[:, :, None]  # b.v, with b = x - mu_c
    length = jnp.sum(x * x, axis=1)[:, None] + jnp.sum(classes.center**2, axis=1)[None]
    rounded_down = (1 - ROUNDING) * length - 2 * jnp.dot(x, classes.center.T, precision="highest")
    distance = jnp.maximum(rounded_down, 0)  # not above the true one: certificates stay valid
    chosen = _near_classes(distance, labels, weights)
    square = far.references.square[:, :, None]
    apart = distance.T[:, None] - 2 * products[:, : square.shape[1]] + square
    few = FewShotRivals(far.references, jnp.maximum(apart, 0), chosen)
    near = _of_classes(x, rows, labels, weights, jax.tree.map(lambda leaf: leaf[chosen], classes), chosen, few)

    inside, smeared = (jnp.sum(each[:, :, None] * products**2, axis=1).T for each in (far.share, far.smear))
    skew = jnp.dot(x, classes.third_moment.T, precision="highest")
    values = {
        "squared_distance": distance,
        "along": inside + far.rest[None] * distance,
        "most": inside + far.most[None] * distance,
        "skew": skew - jnp.sum(classes.third_moment * classes.center, axis=1)[None],
        "smeared": smeared,
        "cubic": jnp.zeros_like(distance),
    }
    values["mixed"] = classes.variance[None] * values["along"]
    exact = near.along if near.most is None else near.most
    placed = {
        name: value.at[:, chosen].set(exact if name == "most" else getattr(near, name))
        for name, value in values.items()
    }
    return dataclasses.replace(near, **placed)


def _near_classes(
    distance: Float[Array, "b k"], labels: Int[Array, " b"], weights: Float[Array, " b"]
) -> Int[Array, " u"]:
    """The classes of a block's queries, and those that are among the nearest of most of them."""
    columns, counted = sizes().near, weights[:, None] > 0
    own = labels[:, None] == jnp.arange(distance.shape[1], dtype=labels.dtype)[None]
    nearest = jax.lax.top_k(-distance, min(NEAREST + 1, columns))[1]
    votes = jnp.zeros(distance.shape[1]).at[nearest].add(counted.astype(jnp.float32))
    least = jnp.min(jnp.where(counted, distance, jnp.inf), axis=0)
    votes = jnp.where(jnp.any(own, axis=0), jnp.inf, votes - least / (1 + jnp.max(distance)))
    return jax.lax.top_k(votes, columns)[1].astype(jnp.int32)


def _of_classes(
    x: Float[Array, "b d"],
    rows: Int[Array, " b"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    classes: QueryClasses,
    numbers: Int[Array, " k"],
    others: FewShotRivals | None = None,
) -> QueryGeometry:
    """Of these classes, by their numbers; the queries' own are among them. Other rivals count for few shots alone."""
    own = labels[:, None] == numbers.astype(labels.dtype)[None, :]
    place = jnp.argmax(own, axis=1)  # of its own among them
    batch = None if others is None else len(numbers)  # of the near, all at once
    n, w = classes.count[place], weights
    rest = jnp.where(n > w, n - w, 1)
    s, g = w / rest, n / rest  # h = s a, b = g a; sums over all weigh g, the query s

    def of_class(arguments: tuple[Array, QueryClasses]) -> tuple[dict[str, Array], Array, Array]:
        """About all samples of class c: what `own` queries are left out of, they are left out of below."""
        c, of = arguments
        b, own = x - of.center[None, :], labels == c.astype(labels.dtype)
        distance = jnp.sum(b * b, axis=1)
        products = jnp.dot(of.references.centered, b.T, precision="highest")
        terms = {"distance": distance, "skew": jnp.dot(b, of.third_moment, precision="highest")}
        terms |= _quadratic_forms(b, distance, products, of)
        squares = of.references.square[:, None] + jnp.where(own[None], 2 * s[None] * products, 0)
        squares = squares + jnp.where(own, s**2 * distance, 0)[None]
        products = jnp.where(own[None], g[None] * (products + (s * distance)[None]), products)
        weight = jnp.where(of.references.rows[:, None] == rows[None], 0, of.references.weight[:, None])
        second = weight * inverse(jnp.sum(weight, axis=0, keepdims=True)) * products**2
        terms |= {"cubic": jnp.sum(second * products, axis=0), "mixed": jnp.sum(second * squares, axis=0)}
        apart = jnp.where(own, g**2 * distance, distance)[None] - 2 * products + squares  # ||x - z||^2
        return terms, jnp.maximum(apart, 0), weight

    terms, apart, weight = jax.lax.map(of_class, (numbers, classes), batch_size=batch)
    terms = {name: value.T for name, value in terms.items()}
    # of a
    r, q, p, moved = (
        jnp.sum(jnp.where(own, terms[name], 0), axis=1) for name in ("distance", "along", "skew", "smeared")
    )
    v, m4, square = classes.variance[place], classes.fourth_moment[place], classes.square[place]
    bb, hh = g**2 * r, s**2 * r
    taken, least = s * bb**2, ROUNDING * s * bb**2
    of_own = (g * s * r) ** 2
    own_skew = g * (g * p + 2 * g * s * q + (v + hh) * g * s * r) - taken - least
    own_variance = g * (v + hh) - s * bb
    own_fourth = g * (m4 + 4 * s * p + 4 * s**2 * q + 2 * v * hh + hh**2) - taken
    own_square = g**2 * (square + 2 * s**2 * q + hh**2) - 2 * g * s * (g**2 * q + of_own) + (s * bb) ** 2
    turned = g * s * (s - g)  # Sigma' = g Sigma + turned a a^T
    own_smeared = g**2 * (g**2 * moved + turned * r * (2 * g * q + turned * r**2))
    squared_distance = jnp.where(own, bb[:, None], terms["distance"])

    def without_query(along: Float[Array, "b k"]) -> Float[Array, "b k"]:
        of_class = jnp.sum(jnp.where(own, along, 0), axis=1)
        mine = g * (g**2 * of_class + of_own) - taken
        return jnp.where(own, jnp.maximum(mine, least)[:, None], along)

    return QueryGeometry(
        labels=labels,
        weight=jnp.where(n > w, w / jnp.where(n > 0, n, 1), 0),
        left=rest,
        squared_distance=squared_distance,
        along=without_query(terms["along"]),
        most=without_query(terms["most"]) if "most" in terms else None,
        skew=jnp.where(own, own_skew[:, None], terms["skew"]),
        smeared=jnp.where(own, jnp.maximum(own_smeared, 0)[:, None], terms["smeared"]),
        cubic=terms["cubic"],
        mixed=terms["mixed"],
        own_variance=jnp.maximum(own_variance, 0),
        own_fourth=jnp.maximum(own_fourth, least),
        own_square=jnp.maximum(own_square, s * least),
        length=jnp.linalg.norm(x, axis=1),
        references=few_shot_shares(classes.references, apart, weight, place, others),
    )


def _quadratic_forms(
    b: Float[Array, "b d"], distance: Float[Array, " b"], products: Float[Array, "s b"], of: QueryClasses
) -> dict[str, Float[Array, " b"]]:
    """b^T Sigma b, an upper bound of it where it is not exact, and ||Sigma b||^2 of one class."""
    if isinstance(of.covariance, Samples):
        share = of.references.weight * inverse(jnp.sum(of.references.weight))
        weighed = share[:, None] * products
        smeared = jnp.sum(jnp.dot(of.covariance.gram, weighed, precision="highest") * weighed, axis=0)
        return {"along": jnp.sum(weighed * products, axis=0), "smeared": jnp.maximum(smeared, 0)}
    if isinstance(of.covariance, Leading):
        parts = jnp.dot(b, of.covariance.factor.T, precision="highest") ** 2
        along, values = jnp.sum(parts, axis=1), jnp.sum(of.covariance.factor**2, axis=1)
        return {
            "along": along + of.covariance.rest * distance,
            "most": along + of.covariance.most * distance,
            "smeared": jnp.sum(parts * values[None], axis=1) + of.covariance.rest**2 * distance,
        }
    sigma = symmetric.dense(symmetric.stripes_of(of.covariance, b.shape[1]))
    moved = jnp.dot(b, sigma, precision="highest")
    return {"along": jnp.sum(moved * b, axis=1), "smeared": jnp.sum(moved * moved, axis=1)}
