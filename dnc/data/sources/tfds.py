"""Any image data set of TensorFlow Datasets by name, read by random access and without TensorFlow.

    TfdsImages("imagenette", "train")
    TfdsImages("imagenet_resized/64x64", "validation", data_dir="/data/tfds")
    TfdsImages("cifar100", "train").in_memory()      # tasks: label, coarse_label
    TfdsImages("stl10", "unlabeled")                # no tasks

The data set must have been prepared in the ArrayRecord format, once, on any machine that has TensorFlow and can reach
its files; the error for a missing one gives the command. Those of `packaged` and `tfds_builder` need no TensorFlow.
"""

import hashlib
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import tensorflow_datasets.public_api as tfds
from absl import logging
from PIL import Image

from dnc import errors, files
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.base import ImageSource, fingerprint_of_files
from dnc.data.sources.decode import decode
from dnc.data.sources.packages import data_dir as dnc_data_dir
from dnc.types import UInt8

_BLOCK = 1024  # records per read: several times faster than single records
_UNLABELED = -1  # TFDS's label of an unlabeled image


class _ForeignCodeError(ValueError):
    """A prepared data set names code that is not of TFDS."""


class TfdsImages(ImageSource):
    """A split of a prepared data set. Every ClassLabel feature is a task, unless no image of the split has that label.

    dataset: name, or name/config, as in TFDS.
    split: such as "train", or "train[:90%]".
    data_dir: where it was prepared; by default $DNC_DATA/tfds if it is there, else TFDS's own default.
    tasks: the labelings to use, all by default; () for none.

    Labels are read with the images at first use (all of the split's bytes) and kept as a file in $DNC_DATA/labels.

    Raises FileNotFoundError where the data set is unknown or not prepared, with the command that prepares it; OSError
    where TFDS needs TensorFlow even to describe it; ValueError for another format than ArrayRecord, a split or task
    that it lacks, other than exactly one image per example, or a description that names code outside of TFDS.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        data_dir: str | os.PathLike[str] | None = None,
        tasks: Sequence[str] | None = None,
    ):
        builder = _prepared(dataset, _where(dataset, data_dir))
        if split.split("[")[0] not in builder.info.splits:
            raise errors.unknown(f"{dataset}: split", split, builder.info.splits)
        features = dict(cast(Mapping[str, Any], builder.info.features))
        images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
        if len(images) != 1 or features[images[0]].np_dtype != np.uint8:
            raise ValueError(f"{dataset} has the features {features}: exactly one image of 8-bit levels is needed")
        self._image = images[0]
        self._names = {name: x.names for name, x in sorted(features.items()) if isinstance(x, tfds.features.ClassLabel)}
        if tasks is not None:
            errors.check_known(f"{dataset}: task", tasks, self._names)
            self._names = {task: self._names[task] for task in tasks}
        self._records = _random_access(builder, split, decoders={self._image: tfds.decode.SkipDecoding()})
        self._files = [file for part in builder.info.splits.values() for file in part.filepaths]
        self._title = f"{dataset}, {split}"
        self._identity = f"{builder.data_path} {split} {len(self._records)}"
        height, width, _ = features[self._image].shape
        self.shape = None if None in (height, width) else (height, width)

    def __len__(self) -> int:
        return len(self._records)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(decode(self._records[index][self._image], self.name(index))[0])

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        return decode(self._records[index][self._image], self.name(index), at_least)

    def fingerprint(self) -> str:
        return fingerprint_of_files(self._files)

    def name(self, index: int) -> str:
        return f"{self._title}, image {index}"

    @property
    def class_names(self) -> dict[str, list[str]]:
        return {task: self._names[task] for task in self.labels}

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        if not self._names:
            return {}
        file = dnc_data_dir() / "labels" / f"{hashlib.sha256(self._identity.encode()).hexdigest()[:32]}.npz"
        columns = _kept_labels(file, list(self._names), len(self))
        if columns is None:
            columns = self._read_labels()
            _keep_labels(file, columns)
        for task, values in columns.items():
            if 0 < (missing := np.sum(values == _UNLABELED)) < len(values):
                raise ValueError(
                    f"{self._title}: {missing} of {len(values)} images lack the label {task!r}: choose tasks without it"
                )
        return {task: values for task, values in columns.items() if np.any(values != _UNLABELED)}

    def in_memory(self) -> ArrayImages:
        """All images decoded, for sets of one size that fit: CIFAR-10 takes 184 MB."""
        if self.shape is None:
            raise ValueError(f"{self._title}: images of several sizes do not fit one array: give in_memory=False")
        images = np.empty((len(self), *self.shape, 3), np.uint8)
        for index, example in self._examples():
            images[index] = np.asarray(decode(example[self._image], self.name(index))[0])
        return ArrayImages(images, self.labels, self.class_names)

    def _read_labels(self) -> dict[str, np.ndarray]:
        columns = {task: np.empty(len(self), np.int32) for task in self._names}
        for index, example in self._examples():
            for task, values in columns.items():
                values[index] = example[task]
        return columns

    def _examples(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """All examples in order, read in blocks."""
        for start in range(0, len(self), _BLOCK):
            logging.log_every_n_seconds(logging.INFO, "%s: %d of %d read", 30, self._title, start, len(self))
            yield from enumerate(self._records.__getitems__(range(start, min(start + _BLOCK, len(self)))), start)


def _where(dataset: str, data_dir: str | os.PathLike[str] | None) -> str | None:
    if data_dir is not None:
        return os.path.expanduser(data_dir)
    own = dnc_data_dir() / "tfds"
    return os.fspath(own) if (own / dataset).is_dir() else None


def _prepared(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if re.match(r"\w+:[a-zA-Z_]", dataset):
        raise ValueError(
            f"dataset={dataset!r} names the collection {dataset.partition(':')[0]!r}: only TFDS's own are read"
        )
    try:
        with _only_its_own_code():
            builder = tfds.builder(dataset, data_dir=data_dir)
    except ImportError as error:
        raise OSError(
            f"dataset={dataset!r}: TFDS needs a package to describe it ({error}): pip install it, or tensorflow"
        ) from error
    except _ForeignCodeError as error:
        raise ValueError(f"dataset={dataset!r} in {data_dir or 'the default folder of TFDS'}: {error}") from error
    except (tfds.core.DatasetNotFoundError, ValueError) as error:  # the second: an unknown config of a known name
        known = tfds.list_builders(with_community_datasets=False)
        raise FileNotFoundError(
            f"dataset={dataset!r} is not known to TFDS ({str(error).splitlines()[0]}), nor prepared in "
            f"data_dir={data_dir}: {errors.hint(dataset.split('/')[0], known)}"
        ) from error
    if not builder.info.splits:
        folder = f" --data_dir={data_dir}" if data_dir else ""
        raise FileNotFoundError(
            f"dataset={dataset!r} is not prepared in {builder.data_path}: run `tfds build {dataset} "
            f"--file_format=array_record{folder}` where TensorFlow is installed (pip install tensorflow); reading it "
            "does not need TensorFlow"
        )
    return builder


@contextmanager
def _only_its_own_code() -> Iterator[None]:
    """TFDS imports whatever module the features.json of a prepared data set names; in the block, only its own.

    A data set is data, and may come from anyone. Raises _ForeignCodeError for another module.
    """
    base: Any = tfds.features.FeatureConnector
    importing = base.__dict__["cls_from_name"]

    def refusing(cls: type, name: str) -> type:
        if not name.startswith("tensorflow_datasets."):
            raise _ForeignCodeError(f"its description names {name!r}, code that is not of TFDS")
        return importing.__func__(cls, name)

    base.cls_from_name = classmethod(refusing)
    try:
        yield
    finally:
        base.cls_from_name = importing


def _random_access(builder: Any, split: str, decoders: Any) -> Any:
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"{builder.data_path} is prepared as {builder.info.file_format.value}, which has no random access: prepare "
            "it again with --file_format=array_record, in another --data_dir"
        ) from error


def _kept_labels(file: pathlib.Path, tasks: Sequence[str], n: int) -> dict[str, np.ndarray] | None:
    """The labels in the file; None where it is missing or damaged, or has other tasks or another number of images."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {task: arrays[task] for task in tasks}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return columns if all(values.shape == (n,) for values in columns.values()) else None


def _keep_labels(file: pathlib.Path, columns: Mapping[str, np.ndarray]) -> None:
    """Where nothing can be written, labels are read again next time."""
    try:
        files.write_npz(file, columns)
    except OSError as error:
        logging.warning("could not store labels in %s: %s", file, error)
