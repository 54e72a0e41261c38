"""Some rows of an image source, as a source."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from PIL import Image

from dnc.data.sources.balanced import held_out_rows
from dnc.data.sources.base import ImageSource
from dnc.types import UInt8


@dataclasses.dataclass(frozen=True)
class Subset:
    """The given rows, in their order."""

    source: ImageSource
    rows: np.ndarray

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        return self.source.class_names

    @property
    def shape(self) -> tuple[int, int] | None:
        return self.source.shape

    @property
    def captions(self) -> Sequence[str] | None:
        return self._captions

    @cached_property
    def _captions(self) -> Sequence[str] | None:
        texts = self.source.captions
        return None if texts is None else [texts[int(row)] for row in self.rows]

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        return self._labels

    @cached_property
    def _labels(self) -> Mapping[str, np.ndarray]:
        return {task: values[self.rows] for task, values in self.source.labels.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.source.image(int(self.rows[index]))

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        return self.source.picture(int(self.rows[index]), at_least)

    def name(self, index: int) -> str:
        return self.source.name(int(self.rows[index]))


def split(source: ImageSource, test_per_class: int) -> tuple[Subset, Subset]:
    """Training and test images of one source, by `held_out_rows`."""
    is_test = held_out_rows(source.labels, len(source), test_per_class)
    return Subset(source, np.flatnonzero(~is_test)), Subset(source, np.flatnonzero(is_test))
