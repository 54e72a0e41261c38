"""Pair geometry of features that do not fit in memory: two passes over batches, O(k d + k^2) memory besides."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.blocks import CenteredBlocks
from dnc.geometry.inputs import as_codes, as_numbers
from dnc.geometry.measure import assemble, class_spectra, pair_terms, resolve_overlap
from dnc.geometry.moments import group_by_class, mean_terms
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.validation import check_classes, check_finite
from dnc.types import Array, Float, Int

Batches = Iterable[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class ArrayBatches:
    """Batches of adjacent rows of arrays, memory-mapped or not: (features [b, d], labels [b]), any number of times.

    Features that have a dtype and give NumPy slices (a memory map, an HDF5 or Zarr array) are read slice by slice;
    everything else, and labels, is converted at once by `dnc.geometry.inputs`.
    """

    features: Any
    labels: Any
    rows: int = 65_536

    def __post_init__(self) -> None:
        if not hasattr(self.features, "dtype") or hasattr(self.features, "iloc"):
            object.__setattr__(self, "features", as_numbers(self.features, "features"))
        object.__setattr__(self, "labels", as_codes(self.labels, "labels"))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self.features), self.rows):
            yield (
                as_numbers(self.features[start : start + self.rows], f"features from row {start}"),
                self.labels[start : start + self.rows],
            )


def stream_pair_geometry(
    batches: Batches | Callable[[], Batches],
    num_classes: int,
    *,
    overlap: str = "auto",
    progress: Callable[[str, int], None] | None = None,
) -> PairGeometry:
    """`pair_geometry` of batches (features [b, d], labels [b]) that are read twice: class means, then all pairs.

    Args:
      batches: can be iterated more than once (a list, `ArrayBatches` of a memory map, a dataset), or a function that
        returns such an iterable. The second reading must give the same batches, in any order. Batches smaller than the
        first are padded.
      num_classes: k; labels lie in [0, k), and every class has at least two samples.
      overlap: as for `pair_geometry`. "cauchy_schwarz" needs all rows of a class at once, so it takes `ArrayBatches`,
        and reads them once more. "auto" is "exact" where the covariances fit into 1 GiB, otherwise the best available.
      progress: called with the pass and the number of rows done, after every batch.

    Sums of batches are kept in float64 on the host (covariances in float32 on the device).

    Raises:
      TypeError: batches that can be read only once.
      ValueError: no batches, unequal dimensions, NaN or Inf, labels out of range, a class with fewer than two samples,
        a second reading that differs from the first, or features so large that their fourth powers overflow.
    """
    if not callable(batches) and iter(batches) is batches:
        raise TypeError(
            "batches is an iterator, which can be read once, and geometry takes two passes: give a list, a dataset, or "
            "a function that returns a new iterator (or merge ClassMoments with covariances, which take one pass)"
        )
    source = functools.partial(_converted, batches if callable(batches) else lambda: batches)
    note = progress or (lambda _stage, _rows: None)
    origin, count, mean, size = _read_means(source, num_classes, note)
    overlap = resolve_overlap(
        overlap, num_classes, len(origin), "cauchy_schwarz" if isinstance(batches, ArrayBatches) else "trace"
    )
    if overlap == "cauchy_schwarz" and not isinstance(batches, ArrayBatches):
        raise ValueError('overlap="cauchy_schwarz" needs ArrayBatches: for other batches choose "exact" or "trace"')
    sums, spectra = _read_pairs(source, origin, mean, size, overlap, note)
    if not np.array_equal(sums.pop("count"), count):
        raise ValueError("the second reading of batches has other labels than the first: give the same samples twice")
    if overlap == "cauchy_schwarz":
        assert isinstance(batches, ArrayBatches)
        spectra = {"norm": _read_norms(batches, origin, mean, count, note)}
    totals = {name: jnp.asarray(value, jnp.float32) for name, value in sums.items()} | spectra
    geometry = jax.jit(assemble, static_argnames="overlap")(
        jnp.asarray(origin), jnp.asarray(count, jnp.float32), jnp.asarray(mean, jnp.float32), totals, overlap=overlap
    )
    if not np.isfinite(np.asarray(geometry.fourth_moment)).all():
        raise ValueError("fourth moments overflow float32: divide the features by a constant, which changes no ratio")
    return geometry


def _converted(source: Callable[[], Batches]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches as NumPy arrays, of one length, with at least one row."""
    rows = 0
    for features, labels in source():
        where = f"the batch after row {rows}"
        x, y = as_numbers(features, f"{where}: features"), as_codes(labels, f"{where}: labels")
        yield x, y
        rows += len(y)


def _read_means(
    source: Callable[[], Batches], num_classes: int, note: Callable[[str, int], None]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " k"], Float[np.ndarray, "k d"], int]:
    """Origin, class counts, class means relative to the origin, and the rows of a batch."""
    origin, count, total, size, rows = None, np.zeros(num_classes), np.zeros((num_classes, 0)), 0, 0
    for features, labels in source():
        _check_batch(features, labels, num_classes, rows, None if origin is None else len(origin))
        if origin is None:
            size = len(labels)
            origin = np.asarray(features[:1024], np.float32).mean(axis=0)
            total = np.zeros((num_classes, len(origin)))
        for part in _padded(features, labels, size):
            sums = _mean_sums(*part, origin, num_classes=num_classes)
            count += np.asarray(sums["count"], np.float64)
            total += np.asarray(sums["total"], np.float64)
            _check_sums(total, features, rows)
        rows += len(labels)
        note("means", rows)
    if origin is None:
        raise ValueError("batches is empty: there is nothing to measure")
    check_classes(np.repeat(np.arange(num_classes), count.astype(int)), [str(c) for c in range(num_classes)])
    return origin, count, total / count[:, None], size


def _read_pairs(
    source: Callable[[], Batches],
    origin: Float[np.ndarray, " d"],
    mean: Float[np.ndarray, "k d"],
    size: int,
    overlap: str,
    note: Callable[[str, int], None],
) -> tuple[dict[str, np.ndarray], dict[str, Array]]:
    """Sums over all batches: of `pair_terms` on the host, of `class_spectra` on the device."""
    sums, spectra, rows = {}, {}, 0
    in_batches = "exact" if overlap == "exact" else "none"
    for features, labels in source():
        for part in _padded(features, labels, size):
            part_sums, part_spectra = _pair_sums(
                *part, origin, mean.astype(np.float32), with_vectors=overlap != "none", overlap=in_batches
            )
            sums = {name: sums.get(name, 0.0) + np.asarray(value, np.float64) for name, value in part_sums.items()}
            spectra = _add(spectra, part_spectra) if spectra else part_spectra
        rows += len(labels)
        note("pairs", rows)
    return sums, spectra


def _read_norms(
    batches: ArrayBatches,
    origin: Float[np.ndarray, " d"],
    mean: Float[np.ndarray, "k d"],
    count: Float[np.ndarray, " k"],
    note: Callable[[str, int], None],
) -> Float[Array, " k"]:
    """||sum of r r^T||_F of each class: whole classes at a time, as many as a batch has room for."""
    order = np.argsort(batches.labels, kind="stable")
    ends = np.cumsum(count).astype(int)
    size = max(batches.rows, int(count.max()))
    groups, first = [], 0
    while first < len(ends):
        start = ends[first] - int(count[first])
        last = int(np.searchsorted(ends, start + size, side="right"))
        groups.append((first, last, start, int(ends[last - 1])))
        first = last
    widest = max(last - first for first, last, _, _ in groups)
    norms = []
    for first, last, start, end in groups:
        rows = np.sort(order[start:end])
        features, labels = as_numbers(batches.features[rows], "features"), batches.labels[rows] - first
        center = np.zeros((widest, mean.shape[1]), np.float32)
        center[: last - first] = mean[first:last]
        (part,) = _padded(features, labels, size)
        norms.append(_norms(*part, origin, center)[: last - first])
        note("covariances", end)
    return jnp.concatenate(norms)


@functools.partial(jax.jit, static_argnames="num_classes")
def _mean_sums(features: Array, labels: Array, weights: Array, origin: Array, num_classes: int) -> dict[str, Array]:
    mean = jnp.zeros((num_classes, features.shape[1]), jnp.float32)
    return _centered(features, labels, weights, origin, mean).sums(mean_terms)


@functools.partial(jax.jit, static_argnames=("with_vectors", "overlap"))
def _pair_sums(
    features: Array, labels: Array, weights: Array, origin: Array, mean: Array, with_vectors: bool, overlap: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    centered = _centered(features, labels, weights, origin, mean)
    of_pairs = pair_terms(centered.mean, with_vectors)
    sums = centered.sums(lambda r, w, owner: {"count": jnp.sum(w, axis=1), **of_pairs(r, w, owner)})
    return sums, class_spectra(centered, overlap)


@jax.jit
def _norms(features: Array, labels: Array, weights: Array, origin: Array, mean: Array) -> Float[Array, " g"]:
    return class_spectra(_centered(features, labels, weights, origin, mean), "cauchy_schwarz")["norm"]


def _centered(features: Array, labels: Array, weights: Array, origin: Array, mean: Array) -> CenteredBlocks:
    grouped = group_by_class(features, labels, mean.shape[0], weights)
    return dataclasses.replace(grouped, origin=jnp.asarray(origin), mean=jnp.asarray(mean))


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: dict[str, Array], more: dict[str, Array]) -> dict[str, Array]:
    return jax.tree.map(jnp.add, total, more)


def _padded(
    features: np.ndarray, labels: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, Int[np.ndarray, " b"], Float[np.ndarray, " b"]]]:
    """The batch in pieces of `size` rows: one shape, one compilation. Padding has weight 0."""
    for start in range(0, len(labels), size):
        x, y = np.asarray(features[start : start + size]), np.asarray(labels[start : start + size], np.int32)
        short = size - len(y)
        weights = np.pad(np.ones(len(y), np.float32), (0, short))
        yield (np.pad(x, ((0, short), (0, 0))), np.pad(y, (0, short)), weights) if short else (x, y, weights)


def _check_batch(features: np.ndarray, labels: np.ndarray, num_classes: int, rows: int, dimension: int | None) -> None:
    shape, where = features.shape, f"the batch after row {rows}"
    if len(shape) != 2 or shape[0] != len(labels) or not len(labels) or (dimension or shape[1]) != shape[1]:
        expected = "d" if dimension is None else dimension
        raise ValueError(f"{where} has features {shape} and {len(labels)} labels: give [b, {expected}] and b labels")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{where} has labels {labels.min()}..{labels.max()}, not in 0..{num_classes - 1}: map them first"
        )


def _check_sums(total: np.ndarray, features: Any, rows: int) -> None:
    """Raises where sums are infinite or nan, and only then looks for the cause among the features."""
    if np.isfinite(total).all():
        return
    try:
        check_finite(np.asarray(features))
    except ValueError as error:
        raise ValueError(f"the batch after row {rows}: {error}") from None
    raise ValueError(f"the batch after row {rows} overflows float32: divide the features by a constant")
