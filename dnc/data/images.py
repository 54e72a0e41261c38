"""Real images as training data: canvases for random crops on the accelerator, and center crops to measure on."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dnc.data.sources.balanced import balanced_rows
from dnc.data.sources.base import ImageSource
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError, center_crop, stretched
from dnc.data.sources.subset import Subset
from dnc.data.tokenizer import CONTEXT_LENGTH, encode
from dnc.data.views.augment import Augmentation, Views, example_keys, standardize_pixels
from dnc.distributed import available_cores
from dnc.types import Array, Batch, Key

MAX_HELD_OUT_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class ImageTraining:
    """A training and a held-out set of images, and augmented views of the training images.

    Training images are stretched onto a square of `canvas` pixels on the host, and cropped on the accelerator in the
    geometry of the original, whose height and width are part of the example. Held-out images keep their aspect: a
    center crop of `image_size` pixels (see `decode.center_crop`). Images of the right size are never resampled.

    image_size: pixels per side of what the network sees; by default that of the global views, or, where they have
      none, that of the training images, if they are squares of one size.
    canvas: pixels per side; by default `image_size` if all images have one size, else 256/224 of it.
    held_out_examples: number of held-out images, balanced over the classes; by default all.
    context_length: number of tokens of a caption, where the training images have captions (see dnc.data.tokenizer).
    broken: how many images may be impossible to decode. In training, image i is then replaced by the first readable one
      of i + 1, i + 2, ..., with its label and caption; held-out ones are left out. A file that is missing or cannot be
      read raises OSError.

    The training set may have no labels. The labelings that are measured are then those of the held-out set; otherwise
    both must have the same. Raises ValueError, before any image is decoded, where they differ, where a class has no
    held-out image, and for held-out images of more than 4 GiB.
    """

    train: ImageSource
    test: ImageSource
    augmentation: Views
    image_size: int | None = None
    canvas: int | None = None
    held_out_examples: int | None = None
    context_length: int = CONTEXT_LENGTH
    broken: BrokenFiles = dataclasses.field(default_factory=BrokenFiles)

    def __post_init__(self) -> None:
        self._check_classes()
        if self.side < 1 or self.canvas_side < 1:
            raise ValueError(f"image_size={self.image_size}, canvas={self.canvas}: give 1 or more")
        if sizes := {view.size for view in self.augmentation.global_views} - {None, self.side}:
            raise ValueError(
                f"image_size={self.image_size}, but the augmentation makes views of {sizes.pop()} pixels: set "
                f"augmentation.size={self.side} in the config file too, or leave image_size out"
            )
        size = len(self._held_out_rows) * self.side**2 * 3
        if size > MAX_HELD_OUT_BYTES:
            raise ValueError(
                f"{len(self._held_out_rows):,} held-out images of {self.side} px take {size / 2**30:.1f} GiB: set "
                "data.held_out_examples, for example to 10,000"
            )

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        return self.test.class_names

    @property
    def side(self) -> int:
        """Pixels per side of what the network sees."""
        for size in (self.image_size, self.augmentation.global_views[0].size):
            if size is not None:
                return size
        height, width = self.train.shape or (0, 1)
        if height != width:
            raise ValueError("the training images are not squares of one size: set data.image_size, in pixels")
        return height

    @property
    def canvas_side(self) -> int:
        """Pixels per side of what is sent to the accelerator."""
        if self.canvas is not None:
            return self.canvas
        return self.side if self.train.shape is not None else round(self.side * 256 / 224)

    def source(self) -> grain.MapDataset:
        """Examples: index, image uint8 [c, c, 3], size (height, width) of the original, one label per labeling.

        With captions also tokens int32 [t].
        """
        return grain.MapDataset.range(len(self.train)).map(self._example)

    def make_views(self, batch: Any, key: Key[Array, ""]) -> Batch:
        """Standardized views of each image; pure, jitted with the step."""
        images = batch["image"].astype(jnp.float32) / 255.0
        pixels = self._views(example_keys(key, batch["index"]), images, batch["size"])
        views = Batch(**jax.tree.map(standardize_pixels, pixels), labels=batch["labels"])
        if "tokens" in batch:
            views["tokens"] = batch["tokens"]
        return views

    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Center crops of the test images (see `held_out_examples`), and their labels."""
        return self._center_crops(self.held_out_images())

    def held_out_labels(self) -> Mapping[str, np.ndarray]:
        """The labels of `held_out` and of its broken images; none is decoded."""
        return self.held_out_images().labels

    def held_out_images(self) -> ImageSource:
        """The test images of `held_out`, not cropped."""
        return Subset(self.test, self._held_out_rows)

    def training_images(self, examples: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Center crops of that many training images, balanced over classes and always the same, and their labels."""
        return self._center_crops(Subset(self.train, balanced_rows(self.train.labels, len(self.train), examples)))

    @cached_property
    def _views(self) -> Views:
        """The augmentation, its views cut out of the canvas at the size that the network sees."""

        def sized(augmentation: Augmentation) -> Augmentation:
            return dataclasses.replace(augmentation, size=augmentation.size or self.side)

        views = self.augmentation
        return Views(tuple(map(sized, views.global_views)), tuple(map(sized, views.local_views)))

    @cached_property
    def _held_out_rows(self) -> np.ndarray:
        n = len(self.test)
        count = n if self.held_out_examples is None else self.held_out_examples
        if not 1 <= count <= n:
            raise ValueError(f"data.held_out_examples={count}: there are {n} held-out images, give at most {n} or None")
        return balanced_rows(self.test.labels, n, count)

    def _example(self, index: int) -> dict[str, Any]:
        for row in ((index + skipped) % len(self.train) for skipped in range(len(self.train))):
            if (decoded := self._read(self.train, row, self.canvas_side)) is not None:
                picture, size = decoded
                labels = {task: np.int32(values[row]) for task, values in self.train.labels.items()}
                image = stretched(picture, self.canvas_side)
                example = {"index": np.int32(index), "image": image, "size": np.array(size, np.int32), "labels": labels}
                if self.train.captions is not None:
                    example["tokens"] = encode(self.train.captions[row], self.context_length)
                return example
        raise BrokenImageError(f"none of the {len(self.train)} training images can be read")

    def _read(self, source: ImageSource, row: int, at_least: int) -> tuple[Image.Image, tuple[int, int]] | None:
        try:
            return source.picture(row, at_least)
        except BrokenImageError as error:
            self.broken.add(source.name(row), error)
            self.broken.check(len(self.broken), len(self.train) + len(self._held_out_rows))
            return None

    def _center_crops(self, source: ImageSource) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        images = np.empty((len(source), self.side, self.side, 3), np.uint8)

        def fill(row: int) -> bool:
            decoded = self._read(source, row, self.side)
            if decoded is not None:
                images[row] = center_crop(decoded[0], self.side)
            return decoded is not None

        with ThreadPoolExecutor(available_cores()) as pool:
            readable = np.fromiter(pool.map(fill, range(len(source))), bool, len(source))
        if not readable.any():
            raise BrokenImageError(f"none of {len(source)} images can be read, such as {source.name(0)}")
        self.broken.check(int(np.sum(~readable)), len(source))
        kept = slice(None) if readable.all() else readable  # a mask copies
        return images[kept], {task: values[kept] for task, values in source.labels.items()}

    def _check_classes(self) -> None:
        test = {task: list(names) for task, names in self.test.class_names.items()}
        train = {task: list(names) for task, names in self.train.class_names.items()}
        if train and train != test:
            differing = [task for task in train.keys() | test.keys() if train.get(task) != test.get(task)]
            raise ValueError(
                f"training and held-out images have different classes in {', '.join(sorted(differing))}: give both the "
                "same labelings and classes, or train without labels (train_tasks=())"
            )
        for task, names in test.items():
            counts = np.bincount(self.test.labels[task][self._held_out_rows], minlength=len(names))
            if absent := [names[index] for index in np.flatnonzero(counts == 0)]:
                raise ValueError(
                    f"{len(absent)} classes of task {task!r} have no held-out image, such as {absent[0]!r}: add some, "
                    "or raise data.held_out_examples"
                )
