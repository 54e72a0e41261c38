"""Measure the geometry of all class pairs at once: one pass for the class means, one matrix product for all axes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dnc import errors
from dnc.compiling import jit_quickly
from dnc.geometry import symmetric
from dnc.geometry.blocks import CenteredBlocks
from dnc.geometry.far_classes import FAR_REFERENCES, far_classes
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.leading import RANK, Leading, leading
from dnc.geometry.moments import RESOLUTION, ClassMoments, center_by_class, inverse, mean_slip, scale, vector_sums
from dnc.geometry.pairs import MarginTerms, PairGeometry
from dnc.geometry.queries import HELD, QuerySource, covariance_form
from dnc.geometry.query_geometry import QueryClasses, Samples, has_far
from dnc.geometry.references import choose_references
from dnc.types import Array, ArrayLike, Float, Int

NEIGHBORS = 63  # rivals of a class whose joint axis covariance is kept, of at most 128 classes; of more, fewer
_FEWEST_NEIGHBORS, _NEIGHBOR_PAIRS = 15, 2**13
LARGEST_COVARIANCES = 2**30  # bytes of k d x d covariances up to which all are held at once
OVERLAP_OPERATIONS = 6e11  # multiplications of larger ones, some at a time, up to which `overlap="auto"` is exact
OVERLAPS = ("none", "trace", "cauchy_schwarz", "exact")


@converted(features=as_numbers, labels=as_codes, weights=as_numbers)
@functools.partial(jit_quickly, static_argnames=("num_classes", "overlap", "queries", "parts", "largest"))
def pair_geometry(
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    num_classes: int,
    weights: Float[ArrayLike, " n"] | None = None,
    *,
    overlap: str = "auto",
    queries: bool = False,
    parts: int = 1,
    largest: int | None = None,
) -> PairGeometry:
    """Geometry of all k(k-1) ordered class pairs (Luthra et al. 2026, sections 2 and 4).

    For x in class i let p_j(x) = (x - mu_i) . (mu_j - mu_i). One (n, d) @ (d, k) product gives every p_j(x);
    the class means of p_j p_l are the axis covariances; u_ij^T Sigma_i u_ij = E_i[p_j^2] / d_ij^2.

    Pure and jitted; `num_classes`, `overlap` and `parts` are static. Features must be finite, labels in
    [0, num_classes) and every class non-empty: `dnc.geometry.validation.validate` checks that on the host.

    Args:
      features: of any kind that `dnc.geometry.inputs.as_array` takes, and any real dtype; measured in float32.
      labels: class numbers.
      num_classes: k.
      weights: non-negative frequency of each sample; one of weight 0 does not count, whatever it and its label hold, so
        that a padded batch is masked by weights of 0 and 1.
      overlap: "none" measures only collapse, about one matrix product. Certificates need tr(Sigma_i Sigma_j) too:
        "exact" costs n d^2 + k^2 d^2 operations and k d^2 memory up to 1 GiB; beyond, covariances are made group by
        group, again for every other group. "cauchy_schwarz" costs n d^2 and d^2, "trace" nothing. "auto" is "exact"
        where the covariances fit into 1 GiB or take at most 6e11 operations, and "cauchy_schwarz" beyond.
      queries: also measure what `exact_conditional` and predictions need, or, where that is more than 2^23 pairs of a
        sample and a class, keep the samples that it is made from wherever it is used (see `QuerySource`). About
        n k d (d + s) operations for the s references of a class; where classes have few samples, n^2 d; where both are
        many, covariances count by their leading eigenvectors. Of more than 256 classes (on accelerators 1,024), only
        those near a block of samples are held against it like this. Not with overlap="trace" or "none".
      parts: number of equal parts that rows are cut into, each sorted and summed separately. On a mesh whose `data`
        axis has p shards, parts=p keeps every row on its device; only class sums cross.
      largest: at least as many samples as any class has, where that is known: queries of small classes then cost less.
        With fewer, errors toward larger classes count as certain.

    >>> import numpy as np
    >>> features = np.array([[-1.0, 0.0], [1.0, 0.0], [4.0, -1.0], [4.0, 1.0]])
    >>> geometry = pair_geometry(features, np.array([0, 0, 1, 1]), num_classes=2)
    >>> geometry.cdnv.tolist()
    [[nan, 0.125], [0.125, nan]]
    >>> geometry.directional_cdnv.tolist()
    [[nan, 0.0625], [0.0, nan]]
    """
    n, d = jnp.shape(features)
    overlap = resolve_overlap(overlap, num_classes, d, samples=n)
    if queries and overlap not in ("exact", "cauchy_schwarz"):
        raise ValueError(f'queries need overlap="exact" or "cauchy_schwarz", got {overlap!r}')
    centered, count = center_by_class(features, labels, num_classes, weights, parts)
    sums = centered.sums(pair_terms(centered.mean, overlap != "none"))
    fits = overlap != "exact" or covariance_bytes(num_classes, d) <= LARGEST_COVARIANCES
    sums |= class_spectra(centered, overlap) if fits else {"overlap": _overlaps_by_groups(centered)}
    geometry = assemble(centered.origin, count, centered.mean, sums, overlap)
    if not queries:
        return geometry
    sample_weights = jnp.ones(jnp.shape(labels), jnp.float32) if weights is None else jnp.asarray(weights, jnp.float32)
    samples = jnp.asarray(features), jnp.asarray(labels), sample_weights
    source = _query_source(*samples, centered, geometry, sums, largest)
    few = len(sample_weights) * num_classes <= HELD
    return dataclasses.replace(
        geometry, queries=source.held() if few else source, trace_of_cube=source.classes.references.cube
    )


def _query_source(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    centered: CenteredBlocks,
    geometry: PairGeometry,
    sums: dict[str, Array],
    largest: int | None,
) -> QuerySource:
    """What the geometry of queries is made from; `sums` over classes are those that `geometry` comes from."""
    (n, d), k = features.shape, len(geometry.counts)
    weight = inverse(geometry.counts)
    per_sample = {name: scale(weight, value) for name, value in sums.items()}
    center = centered.mean + per_sample["slip"]
    form, size = covariance_form(n, k, d, largest)
    references = choose_references(features, labels, weights, center + centered.origin[None], size)
    if form == "samples":
        gram = jax.lax.map(lambda a: jnp.dot(a, a.T, precision="highest"), references.centered)
        covariance = Samples(gram)
        of_class = jnp.zeros(k).at[labels].add((weights > 0).astype(jnp.float32))
        center = jnp.where((of_class > size)[:, None], jnp.nan, center)  # `largest` was too small: errors are certain
    elif form == "flat" and "flat" in per_sample:
        covariance = per_sample["flat"]
    else:
        found = centered.map_second_moments(functools.partial(leading, num_classes=k, rank=RANK))
        covariance = Leading(scale(jnp.sqrt(weight), found.factor), weight * found.rest, weight * found.most)
    far = None
    if has_far(k):
        few = choose_references(features, labels, weights, center + centered.origin[None], min(size, FAR_REFERENCES))
        far = far_classes(None if isinstance(covariance, Samples) else covariance, references, few, center)
    assert geometry.margin_terms is not None
    classes = QueryClasses(
        geometry.counts,
        center,
        geometry.variance,
        _third_moments(per_sample),
        geometry.fourth_moment,
        jnp.diag(geometry.margin_terms.covariance_overlap),
        references,
        covariance,
        far,
    )
    return QuerySource(features, labels, weights, centered.origin, classes)


@jax.jit
def pair_geometry_from_moments(moments: ClassMoments) -> PairGeometry:
    """The same from (merged) class moments alone, without the data; they must have covariances.

    Quadratic forms of float32 covariances: the directional variance loses about tr Sigma_i / (u^T Sigma_i u)
    times 1e-7 of relative accuracy, so prefer `pair_geometry` for strongly collapsed features.
    """
    if moments.covariance is None or moments.third_moment is None or moments.fourth_moment is None:
        raise ValueError("moments have no covariances, which the axes need: make them with covariance=True")
    near = nearest_classes(moments.mean)

    def along_axes(arguments: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        mean, covariance, rivals = arguments
        axes = mean[None, :] - moments.mean
        along = jnp.dot(axes, covariance, precision="highest")
        return jnp.sum(along * axes, axis=1), jnp.dot(along[rivals], axes[rivals].T, precision="highest")

    square, joint = jax.lax.map(along_axes, (moments.mean, moments.covariance, near))
    flat = moments.covariance.reshape(moments.count.shape[0], -1)
    products = jnp.dot(flat, flat.T, precision="highest")
    third = _along_axes(moments.mean, moments.third_moment)
    return _geometry(moments, square, MarginTerms(third, products, near, joint, "exact"))


def squared_distances(mean: Float[Array, "k d"], variance: Float[Array, " k"]) -> Float[Array, "k k"]:
    """||mu_i - mu_j||^2, and 0 for means that float32 cannot tell apart.

    From differences, row by row: ||a||^2 + ||b||^2 - 2 a.b would cancel for close means.
    """
    distance = jax.lax.map(lambda center: jnp.sum((mean - center[None, :]) ** 2, axis=1), mean)
    size = jnp.sum(mean**2, axis=1) + variance
    return jnp.where(distance > RESOLUTION**2 * jnp.maximum(size[:, None], size[None, :]), distance, 0)


def nearest_classes(mean: Float[Array, "k d"]) -> Int[Array, "k q"]:
    """The other classes with the nearest means, usually the hardest rivals: all of up to 64 classes, 63 of up to 128,
    and of more, fewer, 15 at least.
    """
    k = mean.shape[0]
    distance = squared_distances(mean, jnp.zeros_like(mean[:, 0]))
    distance = jnp.where(jnp.eye(k, dtype=bool), jnp.inf, distance)
    return jax.lax.top_k(-distance, min(k - 1, NEIGHBORS, max(_FEWEST_NEIGHBORS, _NEIGHBOR_PAIRS // k)))[1]


def resolve_overlap(
    overlap: str, num_classes: int, dimension: int, beyond: str = "cauchy_schwarz", samples: int | None = None
) -> str:
    """The overlap that "auto" stands for: "exact" where the covariances fit, or `samples` make them in time.

    >>> resolve_overlap("auto", num_classes=100, dimension=512), resolve_overlap("auto", 1000, 2048)
    ('exact', 'cauchy_schwarz')
    >>> resolve_overlap("auto", num_classes=1000, dimension=768, samples=50_000)
    'exact'
    """
    if overlap != "auto" and overlap not in OVERLAPS:
        raise errors.unknown("overlap", overlap, ("auto", *OVERLAPS))
    size = covariance_bytes(num_classes, dimension)
    fits = size <= LARGEST_COVARIANCES
    if not fits and samples is not None:
        groups = num_classes / _group_size(dimension)
        fits = (samples * groups + num_classes**2) * symmetric.length(dimension) / 2 <= OVERLAP_OPERATIONS
    return overlap if overlap != "auto" else "exact" if fits else beyond


def covariance_bytes(num_classes: int, dimension: int) -> int:
    return 4 * num_classes * dimension**2


def _group_size(dimension: int) -> int:
    """Classes whose covariances are held at once where not all are: an eighth of `LARGEST_COVARIANCES`."""
    return max(1, LARGEST_COVARIANCES // 8 // (4 * symmetric.length(dimension)))


def pair_terms(mean: Float[Array, "k d"], for_certificates: bool):
    """Block sums, for `CenteredBlocks.sums`, from which a PairGeometry follows."""
    near = nearest_classes(mean) if for_certificates else None

    def terms(r: Float[Array, "b s d"], w: Float[Array, "b s"], owner: Int[Array, " b"]) -> dict[str, Array]:
        b, s, d = r.shape
        squares = jnp.sum(r * r, axis=2)
        scores = jnp.dot(r.reshape(b * s, d), mean.T, precision="highest").reshape(b, s, -1)
        scores -= jnp.take_along_axis(scores, owner[:, None, None], axis=2)  # (x - mu_i) . (mu_j - mu_i)
        result = {
            "variance": jnp.sum(w * squares, axis=1),
            "fourth": jnp.sum(w * squares**2, axis=1),
            "square": jnp.einsum("bs,bsk->bk", w, scores**2, precision="highest"),
        }
        if near is not None:
            joint = jnp.take_along_axis(scores, near[owner][:, None, :], axis=2)
            result |= vector_sums(r, w, squares)
            result["joint"] = jnp.einsum("bsq,bsl->bql", joint, w[:, :, None] * joint, precision="highest")
        return result

    return terms


def class_spectra(centered: CenteredBlocks, overlap: str) -> dict[str, Array]:
    """Class sums from which tr(Sigma_i Sigma_j) follows: second moments, or their norms."""
    if overlap == "exact":
        return {"flat": centered.map_second_moments(symmetric.flat)}
    if overlap == "cauchy_schwarz":
        return {"norm": centered.map_second_moments(lambda total: jnp.linalg.norm(symmetric.flat(total)))}
    return {}


def _overlaps_by_groups(centered: CenteredBlocks) -> Float[Array, "k k"]:
    """Inner products of all pairs of second moments, of which two groups of classes are in memory at a time."""
    k, d = centered.mean.shape
    size = min(_group_size(d), k)
    count = -(-k // size)
    groups = jnp.minimum(jnp.arange(count * size), k - 1).reshape(count, size).astype(jnp.int32)

    def of_group(g: Array) -> Float[Array, "c s s"]:
        own = centered.map_second_moments(symmetric.flat, groups[g])

        def with_group(h: Array) -> Float[Array, "s s"]:
            return symmetric.gram(own, centered.map_second_moments(symmetric.flat, groups[h]))

        return (
            jax.lax.map(
                lambda h: jax.lax.cond(h > g, with_group, lambda _: jnp.zeros((size, size), jnp.float32), h),
                jnp.arange(count),
            )
            .at[g]
            .set(symmetric.gram(own))
        )

    upper = jax.lax.map(of_group, jnp.arange(count)).swapaxes(1, 2).reshape(count * size, count * size)[:k, :k]
    beyond = jnp.arange(k) // size
    return jnp.where(beyond[:, None] > beyond[None, :], upper.T, upper)


def assemble(
    origin: Float[Array, " d"],
    count: Float[Array, " k"],
    mean: Float[Array, "k d"],
    sums: dict[str, Array],
    overlap: str,
) -> PairGeometry:
    """A PairGeometry from class sums of `pair_terms` and `class_spectra`."""
    weight = inverse(count)
    sums = {name: scale(weight, value) for name, value in sums.items()}
    moments = ClassMoments(origin, count, mean, sums["variance"], sums["fourth"], None, None)
    if overlap == "none":
        return _geometry(moments, sums["square"], None)
    third = _third_moments(sums)
    if "overlap" in sums:
        products = sums["overlap"] * weight[None, :]
    elif overlap == "exact":
        products = symmetric.gram(sums["flat"])
    else:
        size = sums["norm"] if overlap == "cauchy_schwarz" else sums["variance"]
        products = size[:, None] * size[None, :]
    terms = MarginTerms(_along_axes(mean, third), products, nearest_classes(mean), sums["joint"], overlap)
    return _geometry(moments, sums["square"], terms)


def _third_moments(sums: dict[str, Array]) -> Float[Array, "k d"]:
    """t_c = E[(z - mu_c) ||z - mu_c||^2] from class averages, without the slip of rounded means as far as is known."""
    third = sums["third"] - mean_slip(sums)
    if "flat" not in sums:
        return third
    d = third.shape[1]
    along = jax.lax.map(
        lambda own: symmetric.times(symmetric.stripes_of(own[0], d), own[1]), (sums["flat"], sums["slip"])
    )
    return third - 2 * along


def _along_axes(mean: Float[Array, "k d"], third: Float[Array, "k d"]) -> Float[Array, "k k"]:
    """[i, j] = (mu_i - mu_j).t_j"""
    return jax.lax.map(lambda own: jnp.dot(mean - own[0][None, :], own[1], precision="highest"), (mean, third)).T


def _geometry(moments: ClassMoments, square: Float[Array, "k k"], margin_terms: MarginTerms | None) -> PairGeometry:
    """`square[i, j]` is D_ij^T Sigma_i D_ij."""
    distance = squared_distances(moments.mean, moments.variance)
    assert moments.fourth_moment is not None
    return PairGeometry(
        counts=moments.count,
        means=moments.means,
        variance=moments.variance,
        fourth_moment=moments.fourth_moment,
        squared_distance=distance,
        directional_variance=square / jnp.where(distance > 0, distance, jnp.nan),
        margin_terms=margin_terms,
    )
