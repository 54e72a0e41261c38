"""Training batches in an order that is a function of the seed and the step alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from dnc.types import Array, Batch, Key


@runtime_checkable
class TrainingData(Protocol):
    """What training needs of a data set."""

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The labelings and their classes."""
        ...

    def source(self) -> grain.MapDataset:
        """Examples by index, as dicts of NumPy arrays."""
        ...

    def make_views(self, batch: Any, key: Key[Array, ""]) -> Batch:
        """Two views of every example of a batch, and labels: pure, jitted into the training step."""
        ...

    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Evaluation images, uint8 [n, h, w, 3], and labels [n] for each labeling."""
        ...


def batches(
    source: grain.MapDataset, batch_size: int, seed: int, start_step: int = 0, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, Any]]:
    """Example numbers [batch_size] and examples of each batch from `start_step` on, without end.

    Shuffled anew each epoch; what does not fill a batch is dropped. Batch s is a function of the seed and s alone: the
    same whether training started at step 0 or resumed at s, on however many processes. The numbers are those of the
    whole batch; of the examples, only its `rows` are read (all by default).
    """
    if len(source) < batch_size:
        raise ValueError(f"batch_size={batch_size} is larger than the data set of {len(source)} examples.")
    rows = np.arange(batch_size) if rows is None else rows

    def read(numbers: np.ndarray) -> tuple[np.ndarray, Any]:
        examples = [source[int(number)] for number in numbers[rows]]
        return numbers, jax.tree.map(lambda *leaves: np.stack(leaves), *examples)

    order = grain.MapDataset.range(len(source)).shuffle(seed=seed).batch(batch_size, drop_remainder=True).repeat()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(order.map(read)[start_step:].to_iter_dataset(options))
