"""What a set of images is: RGB images by index, with any number of labelings."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from dnc.types import UInt8


@runtime_checkable
class ImageSource(Protocol):
    """Images by index. `class_names[task][labels[task][i]]` names image i; both are empty without labels."""

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The labelings ("tasks") and their classes."""
        ...

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        """Integers [n] for each task."""
        ...

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every image, or None where they are not known to be the same."""
        ...

    @property
    def captions(self) -> Sequence[str] | None:
        """A text for each image, or None where there are none."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One image as it is; raises BrokenImageError where it cannot be decoded."""
        ...

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        """The same as an RGB picture with at least so many pixels a side, if it has them; original height and width.

        What is much larger may come out reduced, where that saves decoding.
        """
        ...

    def name(self, index: int) -> str:
        """What messages call this image: its path, or its place in the set."""
        ...
