"""Some rows of an image source, as a source."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dnc import errors
from dnc.data.sources.balanced import held_out_rows
from dnc.data.sources.base import ImageSource
from dnc.types import Int, UInt8


class Subset(ImageSource):
    """The chosen rows of a source, in their order, with all of its labelings or those in `tasks`."""

    def __init__(self, source: ImageSource, rows: Int[np.ndarray, "rows"], tasks: Sequence[str] | None = None):
        chosen = source.labels if tasks is None else tasks
        errors.check_known("tasks", chosen, source.labels)
        self.source, self.rows, self.shape = source, rows, source.shape
        self.class_names = {task: source.class_names[task] for task in chosen}
        self.labels = {task: np.asarray(source.labels[task])[rows] for task in chosen}
        texts = source.captions
        self.captions = None if texts is None else [texts[int(row)] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.source.image(int(self.rows[index]))

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        return self.source.picture(int(self.rows[index]), at_least)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def name(self, index: int) -> str:
        return self.source.name(int(self.rows[index]))


def split(source: ImageSource, test_per_class: int) -> tuple[Subset, Subset]:
    """Training and test images of one source, by `held_out_rows`."""
    is_test = held_out_rows(source.labels, len(source), test_per_class)
    return Subset(source, np.flatnonzero(~is_test)), Subset(source, np.flatnonzero(is_test))
