"""Host-side checks of features, labels and shots: bad input raises here, with a name and a remedy.

Jitted code cannot look at values, so everything it assumes is checked before it is called.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dnc.geometry.inputs import as_array, as_codes, as_numbers, refuse_missing, shape_remedy
from dnc.types import ArrayLike, Float, Int

_ROWS_AT_ONCE = 4096  # of which float64 copies are made
RESOLVED = 2**14  # largest distance from the mean, in units of what two classes lie apart, that float32 resolves


def validate(features: Any, labels: Any) -> None:
    """Check what `pair_geometry` assumes: finite [n, d] features, labels 0..k-1 with k >= 2, all classes >= 2.

    Raises ValueError (or TypeError for a dtype that is not numeric) naming the argument, the value and the remedy.
    """
    array = as_features(features)
    codes = as_codes(labels, "labels")
    check_same_length(len(array), len(codes), "labels")
    check_finite(array)
    if codes.min() < 0:
        raise ValueError(f"labels must be 0..k-1, got {codes.min()}: map them with encode_labels")
    check_classes(codes, [str(c) for c in range(int(codes.max()) + 1)])


def as_features(features: Any, name: str = "features") -> np.ndarray:
    """Features of any kind (see `dnc.geometry.inputs.as_array`) as a numeric [n, d] array, n and d positive.

    Nothing is copied where NumPy need not copy: a memory map stays one.
    """
    array = as_numbers(features, name)
    if array.dtype.kind == "b":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}: convert them to float32")
    if array.ndim == 3 and isinstance(features, (list, tuple)):
        raise ValueError(f"{name} must have shape [n, d], got {array.shape}: of batches give np.concatenate({name})")
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape [n, d], got {array.shape}: flatten or pool other axes first")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def check_same_length(n: int, labels: int, name: str) -> None:
    if n != labels:
        raise ValueError(f"features have {n} rows but {name} has {labels} entries: give one label per row")


def check_finite(features: np.ndarray) -> None:
    """Refuse NaN and Inf, with their number and the first rows that hold them."""
    bad = ~np.isfinite(features)
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=1))
        raise ValueError(
            f"features hold {int(bad.sum())} NaN or Inf values in {len(rows)} of {len(features)} rows "
            f"(first rows: {', '.join(map(str, rows[:5]))}): drop these rows or fix the encoder"
        )


def check_classes(codes: np.ndarray, names: Sequence[str], minimum: int = 2, name: str = "labels") -> None:
    """At least two classes, and at least `minimum` samples in each; errors call the labels `name`."""
    if len(names) < 2:
        raise ValueError(f"{name} hold one class ({names[0]!r}): collapse needs at least two")
    counts = np.bincount(codes, minlength=len(names))
    small = np.flatnonzero(counts < minimum)
    if small.size:
        listed = ", ".join(f"{names[c]!r} has {counts[c]}" for c in small[:5])
        raise ValueError(
            f"{name}: every class needs at least {minimum} samples: class {listed}; drop it or add samples"
        )


def class_counts(labels: ArrayLike, num_classes: int, name: str = "labels") -> Int[np.ndarray, " k"]:
    """Samples of each class; raises unless labels are integers in 0..num_classes-1 and there are two classes.

    Looks at labels through jax, so that those split over devices, of one process or several, need not be gathered.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes} must be at least 2")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be one-dimensional integers, got {labels.dtype} of shape {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"{name} range over {labels.min()}..{labels.max()}; they must lie in 0..{num_classes - 1} "
            f"(num_classes={num_classes})"
        )
    return np.asarray(jnp.bincount(labels, length=num_classes))


def encode_labels(
    labels: Any, class_names: Sequence[str] | None = None, name: str = "labels"
) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Map labels (integers, booleans, whole floats, strings or bytes) to 0..k-1, and keep the classes' names.

    Classes are ordered by value. Labels that hold -1 beside several classes, which often means "unlabeled", give a
    warning. With `class_names`, integer labels index the list and string labels must occur in
    it; classes of the list without samples are left out.

    >>> codes, names = encode_labels(["dog", "cat", "dog"])
    >>> codes.tolist(), names
    ([1, 0, 1], ['cat', 'dog'])
    """
    array = _as_labels(labels, name)
    if class_names is None:
        values, codes = np.unique(array, return_inverse=True)
        if len(values) > 2 and values.dtype.kind == "i" and values[0] == -1:
            warnings.warn(
                f"{name} hold -1 in {np.count_nonzero(codes == 0)} of {len(codes)} rows, measured as a class of its "
                "own: if it means unlabeled, drop these rows",
                stacklevel=2,
            )
        return codes.astype(np.int32), [str(value) for value in values]
    names = [str(class_name) for class_name in class_names]
    if len(set(names)) < len(names):
        raise ValueError(f"class_names of {name} repeat a name: {names}")
    if array.dtype.kind == "U":
        unknown = sorted(set(array.tolist()) - set(names))
        if unknown:
            raise ValueError(f"{name} hold {unknown[:5]}, which are not in class_names {names[:10]}")
        position = {class_name: index for index, class_name in enumerate(names)}
        array = np.array([position[label] for label in array.tolist()])
    if array.min() < 0 or array.max() >= len(names):
        raise ValueError(f"{name} must index class_names (0..{len(names) - 1}), got {array.min()}..{array.max()}")
    present, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int32), [names[int(index)] for index in present]


def standardize(features: np.ndarray) -> tuple[Float[np.ndarray, "n d"], float]:
    """Translate and scale features so that float32 holds their fourth powers; returns them and the unit.

    Collapse measures, certificates and nearest-centroid errors are invariant to translation and scale; variances in
    the features' own units are those of the result times unit^2. The unit is a power of two, so scaling rounds
    nothing.
    """
    x = _floating(features)
    x, unit = _scaled(x, float(np.abs(x).max()))
    x = x - x.mean(axis=0, dtype=np.float64).astype(x.dtype)
    x, spread = _scaled(x, float(np.sqrt(np.mean(x.astype(np.float64) ** 2))))
    return x.astype(np.float32), unit * spread


def parts(features: np.ndarray) -> Iterator[tuple[slice, Float[np.ndarray, "b d"]]]:
    """Float64 copies of the rows, a few at a time, and which they are."""
    for start in range(0, len(features), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        yield rows, features[rows].astype(np.float64)


def scaled_and_centered(features: np.ndarray) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Features in float32, scaled to largest magnitude 1; and less their mean, subtracted in float64, scaled too."""
    peak = max(float(features.max()), -float(features.min()), 1e-300)
    mean = sum((part / peak).sum(axis=0) for _, part in parts(features)) / len(features)
    width = max(*(float(np.abs(part / peak - mean).max()) for _, part in parts(features)), 1e-300)
    scaled, centered = np.empty(features.shape, np.float32), np.empty(features.shape, np.float32)
    for rows, part in parts(features):
        scaled[rows], centered[rows] = part / peak, (part / peak - mean) / width
    return scaled, centered


def check_resolution(features: np.ndarray, codes: Int[np.ndarray, " n"], names: Sequence[str], task: str) -> None:
    """`check_means` of the classes, for features that are measured relative to their mean."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    x = features if features.dtype.itemsize >= 4 else features.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(x[order], np.cumsum(counts) - counts, axis=0, dtype=np.float64)
        check_means(sums / counts[:, None] - sums.sum(axis=0) / len(codes), names, f" of {task}")


def check_means(
    means: Float[np.ndarray, "k d"], names: Sequence[str], where: str = "", rounding: float = 1e-14
) -> None:
    """Refuse two classes that lie too close together, for float32, where the rest of the features puts them.

    From RESOLVED times the distance of two class means on, rounding what lies between a class and the origin would show
    in the directional variance of the two. Means that are equal but for `rounding`, relative to their length, coincide,
    which is no matter of float32.
    """
    size = np.linalg.norm(means, axis=1)
    square = size[:, None] ** 2 + size[None, :] ** 2 - 2 * means @ means.T
    largest = np.maximum(size[:, None], size[None, :])
    pairs = np.argwhere(np.triu(square < 2 * (largest / RESOLVED) ** 2, 1))
    for i, j in pairs.tolist():
        distance = np.linalg.norm(means[i] - means[j])
        if rounding * largest[i, j] < distance < largest[i, j] / RESOLVED:
            raise ValueError(
                f"classes {names[i]!r} and {names[j]!r}{where} lie {distance:.2g} apart and {largest[i, j]:.2g} "
                "from the mean of all features, too far for float32: leave out the far samples, or measure these "
                "classes on their own"
            )


def unit_rows(features: np.ndarray) -> Float[np.ndarray, "n d"]:
    """Each row divided by its Euclidean norm. Raises ValueError for a row of zeros."""
    x = _floating(features)
    peak = np.abs(x).max(axis=1, keepdims=True)
    if not peak.all():
        row = int(np.flatnonzero(peak == 0)[0])
        raise ValueError(f"features row {row} is all zeros and has no direction: drop it or set normalize=False")
    x = x / peak  # squares of what remains neither overflow nor vanish
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _scaled(x: np.ndarray, size: float) -> tuple[np.ndarray, float]:
    exponent = int(np.frexp(size)[1])  # 0 for size 0
    with np.errstate(over="ignore"):  # a unit of inf beyond float64
        return np.ldexp(x, -exponent), float(np.ldexp(1.0, exponent))


def _floating(features: np.ndarray) -> np.ndarray:
    """A copy in float32 if that holds every value, else in float64."""
    narrow = features.dtype == np.float32 or features.dtype.itemsize <= 2
    return features.astype(np.float32 if narrow else np.float64)


def _as_labels(labels: Any, name: str) -> np.ndarray:
    """Labels as integers of any size, or strings."""
    array = as_array(labels, name)
    if array.ndim != 1 or array.size == 0:
        remedy = shape_remedy(array, name)
        raise ValueError(
            f"{name} must be a non-empty one-dimensional array, got shape {array.shape}" + (remedy and f": {remedy}")
        )
    if array.dtype.kind == "O" and not all(type(label) is int for label in array):
        listed = sorted({type(label).__name__ for label in array})
        raise TypeError(f"{name} must be all integers or all strings, got objects of type {listed}")
    if array.dtype.kind == "f":
        return _whole(array, name)
    if array.dtype.kind not in "iubUO":
        raise TypeError(f"{name} must be integers or strings, got dtype {array.dtype}")
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def _whole(labels: np.ndarray, name: str) -> Int[np.ndarray, " n"]:
    """Floats as the integers that they are."""
    refuse_missing(np.isnan(labels), name)
    if not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        raise TypeError(f"{name} must be integers or strings, got {labels.dtype} with fractions or Inf")
    limit = 2 ** (np.finfo(labels.dtype).nmant + 1)
    if np.abs(labels).max() > limit:
        raise ValueError(
            f"{name} reach {np.abs(labels).max():.0f}, but {labels.dtype} tells integers apart only up to {limit}: "
            "keep them as integers or strings"
        )
    return labels.astype(np.int64)
