"""Images held in memory: any arrays, scikit-learn's digits, and what anyone can write with `numpy.savez`."""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from dnc import errors
from dnc.data.sources.balanced import held_out_rows
from dnc.data.sources.base import ImageSource
from dnc.types import Float, UInt8


@dataclasses.dataclass(frozen=True)
class ArrayImages(ImageSource):
    """Images with one label per labeling ("task"): `class_names[task][labels[task][i]]` names image i.

    Raises ValueError unless images are uint8 [n, h, w, 3], both mappings have the same tasks, and every
    labels[task] is an integer array of shape [n] with values 0..k-1, where k >= 2 is the length of
    class_names[task], and there are n captions, if any.
    """

    # Annotated without shapes: these arrays come from outside, and the checks below explain better what is wrong.
    images: np.ndarray
    labels: Mapping[str, np.ndarray]
    class_names: Mapping[str, Sequence[str]]
    captions: Sequence[str] | None = None

    def __post_init__(self):
        _check_images(self.images)
        if self.captions is not None and len(self.captions) != len(self.images):
            raise ValueError(f"{len(self.captions)} captions for {len(self.images)} images: give one per image")
        if set(self.labels) != set(self.class_names):
            raise ValueError(
                f"labels has the tasks {sorted(self.labels)} but class_names has {sorted(self.class_names)}: "
                "give both the same keys"
            )
        for task, labels in self.labels.items():
            _check_labels(task, labels, len(self.images), self.class_names[task])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int]:
        return self.images.shape[1:3]

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.images[index]

    def fingerprint(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()


def load_digits(resolution: int = 32, test_per_class: int = 60) -> dict[str, ArrayImages]:
    """scikit-learn's 1,797 handwritten digits as {"train": ..., "test": ...}, one task named "digit".

    Interpolation: bilinear with half-pixel centers, edges repeated (output pixel p reads position
    (p + 1/2) 8/resolution - 1/2 of the 8 x 8 original), then gray level 0..16 scaled by 255/16, rounded, and
    repeated over the three channels.

    Split: fixed, without a random generator. Of each digit's images in the package's order, `test_per_class`
    evenly spaced images are the test split (balanced, and from the same writers); the rest is train.
    """
    from sklearn import datasets  # takes half a second, which only this set should cost

    if resolution < 8:
        raise ValueError(f"resolution = {resolution} would shrink the 8 x 8 digits and alias: give 8 or more")
    originals, targets = datasets.load_digits(return_X_y=True)
    labels = np.asarray(targets, np.int32)
    is_test = held_out_rows({"digit": labels}, len(labels), test_per_class)
    weights = _bilinear_weights(8, resolution)
    gray = weights @ np.asarray(originals, np.float64).reshape(-1, 8, 8) @ weights.T * (255 / 16)
    images = np.repeat(np.round(gray).astype(np.uint8)[..., None], 3, axis=-1)

    names = [str(digit) for digit in range(10)]
    return {
        split: ArrayImages(images[rows], {"digit": labels[rows]}, {"digit": names})
        for split, rows in {"train": ~is_test, "test": is_test}.items()
    }


def load_npz(path: str | os.PathLike[str], *, tasks: Sequence[str] | None = None) -> ArrayImages:
    """Images and labels from one .npz file, read without pickle.

    Arrays of the file: `images` uint8, [n, h, w, 3] or gray [n, h, w] (repeated over three channels);
    `labels` [n] for a single task, which is then named "class", or `labels_NAME` [n] for each of several;
    optionally `class_names` or `class_names_NAME`, arrays of strings [k]. Without names, classes are called by their
    numbers, and k is the largest label + 1.

    tasks: the labelings to take, by default all; () for none, and the file then needs no labels.

    Raises FileNotFoundError, or ValueError which names the path and what to change.
    """
    arrays = _read_npz(path)
    if "images" not in arrays:
        raise ValueError(f"{path} has no array 'images', only {sorted(arrays)}: save it under that name")
    images = arrays["images"]
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    labels = _by_task(arrays, "labels")
    if tasks is None and not labels:
        raise ValueError(
            f"{path} has no array 'labels' or 'labels_NAME', only {sorted(arrays)}: add one per task, or leave labels "
            "out (dnc embed --nolabels)"
        )
    named_tasks = _by_task(arrays, "class_names")
    if tasks is not None:
        errors.check_known(f"{path}: tasks", tasks, labels)
        labels = {task: labels[task] for task in tasks}
        named_tasks = {task: names for task, names in named_tasks.items() if task in labels}
    class_names = {task: [str(name) for name in names] for task, names in named_tasks.items()}
    for task in labels.keys() - class_names.keys():
        class_names[task] = _numbered_names(task, labels[task])
    try:
        return ArrayImages(images, labels, class_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:
            content = np.load(file)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {name: content[name] for name in content.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a readable .npz file of plain arrays ({error}): write it with "
            "numpy.savez(path, images=..., labels=...); pickled (object) arrays are not accepted"
        ) from error


def _by_task(arrays: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Arrays called `kind` (task "class") or `kind_NAME` (task NAME)."""
    named = {name.removeprefix(f"{kind}_"): array for name, array in arrays.items() if name.startswith(f"{kind}_")}
    return ({"class": arrays[kind]} if kind in arrays else {}) | named


def _numbered_names(task: str, labels: np.ndarray) -> list[str]:
    if labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels of task {task!r} have dtype {labels.dtype}, shape {labels.shape}: give integers [n]")
    return [str(index) for index in range(int(labels.max()) + 1)]


def _bilinear_weights(size: int, resolution: int) -> Float[np.ndarray, "out in"]:
    """Row p weighs the `size` input pixels that output pixel p lies between; rows sum to 1."""
    position = np.clip((np.arange(resolution) + 0.5) * size / resolution - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)[None, :]))


def _check_images(images: np.ndarray) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"images have dtype {images.dtype}: give uint8 levels 0..255")
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(f"images have shape {images.shape}: give [n, h, w, 3] with n, h and w at least 1")


def _check_labels(task: str, labels: np.ndarray, n: int, names: Sequence[str]) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels of task {task!r} have dtype {labels.dtype}: give integers 0..{len(names) - 1}")
    if labels.shape != (n,):
        raise ValueError(f"labels of task {task!r} have shape {labels.shape} for {n} images: give shape ({n},)")
    if len(names) < 2:
        raise ValueError(f"task {task!r} has the classes {list(names)}: collapse is measured between two or more")
    if duplicates := {name for name in names if list(names).count(name) > 1}:
        raise ValueError(f"class_names of task {task!r} repeat {sorted(duplicates)}: give each class its own name")
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if outside.size:
        raise ValueError(
            f"{outside.size} labels of task {task!r} are outside 0..{len(names) - 1}, the first is "
            f"{labels[outside[0]]} at row {outside[0]}: number the classes from 0 in the order of class_names"
        )
