"""Image sets as a config names them: each function returns the training and the held-out images, two `ImageSource`s.

config.data = dict(name="tfds", dataset="imagenette", test="validation", image_size=160, augmentation=dict())
config.data = dict(name="folder", train="photos/train", test="photos/val", image_size=128, augmentation=dict())
config.data = dict(name="my_package.my_module:stripes", train=500, augmentation=dict())    # a function of your own

`name` is a key of SOURCES or such a path. The other entries are the function's arguments, by name, except for
those that prepare the images (image_size, held_out_examples, augmentation, ...), which go to `ImageTraining`. Both
sources must have the same labelings and classes, or the training images none. `ImageSource` has an example.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from dnc import distribution
from dnc.data.sources.arrays import load_digits, load_npz
from dnc.data.sources.base import ImageSource
from dnc.data.sources.folder import FolderImages
from dnc.data.sources.subset import split

Splits = tuple[ImageSource, ImageSource]
IN_MEMORY_BYTES = 2**30


def digits(resolution: int = 32, test_per_class: int = 60) -> Splits:
    """scikit-learn's handwritten digits; see `load_digits`."""
    splits = load_digits(resolution, test_per_class)
    return splits["train"], splits["test"]


def npz(train: str, test: str | None = None, test_per_class: int | None = None) -> Splits:
    """Arrays in files (see `load_npz`): one file per split, or one from which `test_per_class` images are held out."""
    with _about("train"):
        images = load_npz(train)
    with _about("test"):
        other = None if test is None else load_npz(test)
    return _split_or_other(images, other, test_per_class)


def folder(
    train: str,
    test: str | None = None,
    train_table: str | Sequence[str] | None = None,
    test_table: str | Sequence[str] | None = None,
    path_column: str | None = None,
    tasks: Sequence[str] | None = None,
    train_tasks: Sequence[str] | None = None,
    captions: str | None = None,
    test_per_class: int | None = None,
) -> Splits:
    """Image files (see `FolderImages`) in two folders, or of two tables; or one set that is split.

    train_tasks: labelings of the training images, by default those of the held-out ones; () trains without labels.
    captions: the training table's column of captions. Held-out images need none; where their table has that column too,
      list its labelings in tasks.
    test_per_class: how many images of each class to hold out, where there is no test set.
    """
    chosen = tasks if train_tasks is None else train_tasks
    with _about("train"):
        images = FolderImages(train, train_table, path_column=path_column, tasks=chosen, captions=captions)
    if test is None and test_table is None:
        return _split_or_other(images, None, test_per_class)
    known = images.class_names or None
    with _about("test_table" if test is None else "test"):
        other = FolderImages(
            train if test is None else test, test_table, path_column=path_column, tasks=tasks, class_names=known
        )
    return _split_or_other(images, other, test_per_class)


def tfds(
    dataset: str,
    train: str = "train",
    test: str = "test",
    data_dir: str | None = None,
    tasks: Sequence[str] | None = None,
    train_tasks: Sequence[str] | None = None,
    in_memory: bool | None = None,
) -> Splits:
    """Two splits of a prepared TFDS data set; see `TfdsImages`.

    train_tasks: as in `folder`.
    in_memory: decode everything once, at the start; by default where all images have one size and fit in 1 GiB.
    """
    with distribution.extra("train"):
        from dnc.data.sources.tfds import TfdsImages

    sources = (
        TfdsImages(dataset, train, data_dir, tasks if train_tasks is None else train_tasks),
        TfdsImages(dataset, test, data_dir, tasks),
    )
    train_images, test_images = (
        source.in_memory() if _fits(len(source), source.shape, in_memory) else source for source in sources
    )
    return train_images, test_images


@contextmanager
def _about(entry: str) -> Iterator[None]:
    """Errors in the block begin with the entry of config.data that they are about."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"data.{entry}: {error}") from error
    except ValueError as error:
        raise ValueError(f"data.{entry}: {error}") from error


def _fits(examples: int, shape: tuple[int, ...] | None, in_memory: bool | None) -> bool:
    if in_memory is not None:
        return in_memory
    return shape is not None and examples * shape[0] * shape[1] * 3 <= IN_MEMORY_BYTES


def _split_or_other(images: ImageSource, other: ImageSource | None, test_per_class: int | None) -> Splits:
    if other is not None and test_per_class is None:
        return images, other
    if other is None and test_per_class is not None:
        return split(images, test_per_class)
    raise ValueError(
        "data: give held-out images (test or test_table), or how many training images to hold out per class "
        "(test_per_class): one of the two"
    )


def open_images(name: str, root: str | None = None, tasks: Sequence[str] | None = None) -> ImageSource:
    """One set of images, as a command names it.

    name: a folder of image files (one folder per class, or none), a CSV or Parquet table of files below `root` (by
      default the table's own folder), an .npz file, or tfds:NAME:SPLIT, a prepared TFDS data set.
    tasks: the labelings to take, by default all there are; () for none, and an .npz file then needs no labels.

    Raises FileNotFoundError or ValueError.
    """
    path = pathlib.Path(name)
    if name.startswith("tfds:"):
        dataset, _, split_name = name.removeprefix("tfds:").partition(":")
        if not split_name:
            raise ValueError(f"images={name!r}: add the split, as in tfds:{dataset or 'cifar10'}:test")
        with distribution.extra("train"):
            from dnc.data.sources.tfds import TfdsImages

        return TfdsImages(dataset, split_name, tasks=tasks)
    if path.is_dir():
        return FolderImages(path, tasks=tasks)
    if not path.exists():
        raise FileNotFoundError(f"images={name!r} is not a folder or a file, and does not begin with tfds:")
    if path.suffix == ".npz":
        return load_npz(path, tasks=tasks)
    return FolderImages(path.parent if root is None else root, path, tasks=tasks)


SOURCES: dict[str, Callable[..., Splits]] = {"digits": digits, "folder": folder, "npz": npz, "tfds": tfds}
