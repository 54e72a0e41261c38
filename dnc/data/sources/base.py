"""What a set of images is: RGB images by index, with any number of labelings; and how to write one of your own."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from dnc.types import UInt8


@runtime_checkable
class ImageSource(Protocol):
    """Images by index. `class_names[task][labels[task][i]]` names image i; both are empty without labels.

    A source of your own subclasses this and needs four members: `class_names`, `labels`, `__len__` and `image`. The
    others have defaults; set `shape` where all images have one size, or config.data must set image_size.

        class Stripes(ImageSource):
            class_names = {"direction": ["horizontal", "vertical"]}
            shape = (32, 32)

            def __init__(self, n: int):
                self.labels = {"direction": np.arange(n) % 2}

            def __len__(self):
                return len(self.labels["direction"])

            def image(self, index):
                stripes = np.random.default_rng(index).integers(0, 256, (32, 1, 3), np.uint8).repeat(32, axis=1)
                return stripes.swapaxes(0, 1) if self.labels["direction"][index] else stripes

    A function that returns the training and the held-out images makes it a name for a config (see `by_name`):

        def stripes(train: int = 1000, test: int = 200):
            return Stripes(train), Stripes(test)

    Reading runs in several threads, and with reading.workers in several processes: `image` must be a function of the
    index alone, and the source must pickle.
    """

    class_names: Mapping[str, Sequence[str]]  # the labelings ("tasks") and their classes
    labels: Mapping[str, np.ndarray]  # for each task integers [n], 0..k-1
    shape: tuple[int, int] | None = None  # height and width of every image, where they are known to be the same
    captions: Sequence[str] | None = None  # a text for each image, if there are any

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image as it is; raises BrokenImageError (see `decode`) where it cannot be decoded."""
        ...

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        """The same as an RGB picture, and its original height and width.

        A source may save decoding by reducing a picture that is much larger than `at_least` pixels per side, but not
        below that size.
        """
        del at_least
        image = self.image(index)
        return Image.fromarray(image), (image.shape[0], image.shape[1])

    def fingerprint(self) -> str:
        """What changes when the images do: a digest of their content, or of their files' sizes and dates.

        With "", features of images that have changed since are taken for theirs.
        """
        return ""

    def name(self, index: int) -> str:
        """What messages call this image: its path, or its place in the set."""
        return f"image {index}"


def fingerprint_of_files(files: Iterable[str | os.PathLike[str]]) -> str:
    """A digest of the files' sizes and dates, see `ImageSource.fingerprint`. Raises OSError for a missing file."""
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
