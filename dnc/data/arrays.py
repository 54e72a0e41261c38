"""Real images held in memory as training data: views by augmentation."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from dnc.data.augment import Views, standardise
from dnc.data.sources import ArrayImages
from dnc.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class ArrayTraining:
    """A training and a held-out split of labeled images, and augmented views of the first."""

    train: ArrayImages
    test: ArrayImages
    augmentation: Views

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        return self.train.class_names

    def source(self) -> grain.MapDataset:
        """Examples: the index, the uint8 image and a label for each labeling."""
        return grain.MapDataset.range(len(self.train)).map(self._example)

    def _example(self, index: int) -> dict[str, Any]:
        labels = {task: np.int32(values[index]) for task, values in self.train.labels.items()}
        return {"index": np.int32(index), "image": self.train.images[index], "labels": labels}

    def make_views(self, batch: Any, key: Key[Array, ""]) -> Batch:
        """Standardised views of each image; pure, jitted with the step."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        images = batch["image"].astype(jnp.float32) / 255.0
        shown = jax.tree.map(standardise, self.augmentation(keys, images))
        return Batch(**shown, labels=batch["labels"])

    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """The test split."""
        return self.test.images, self.test.labels
