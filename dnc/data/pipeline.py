"""Training batches in an order that is a function of the seed and the step alone, read by all cores."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from dnc.data.sources.base import ImageSource
from dnc.distributed import available_cores
from dnc.types import Array, Batch, Key


@runtime_checkable
class TrainingData(Protocol):
    """What training needs of a data set."""

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The labelings and their classes."""
        ...

    @property
    def side(self) -> int:
        """Pixels a side of what the network sees."""
        ...

    def source(self) -> grain.MapDataset:
        """Examples by index, as dicts of NumPy arrays."""
        ...

    def make_views(self, batch: Any, key: Key[Array, ""]) -> Batch:
        """Views of every example of a batch, and labels: pure, jitted into the training step."""
        ...

    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Evaluation images, uint8 [n, h, w, 3], and labels [n] for each labeling."""
        ...

    def held_out_labels(self) -> Mapping[str, np.ndarray]:
        """The labels of `held_out`, without an image being read."""
        ...

    def held_out_images(self) -> ImageSource:
        """The evaluation images as they come, before anything is cut or resized."""
        ...

    def training_images(self, examples: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """As many images of the training set, prepared as `held_out`'s are: always the same, balanced over classes."""
        ...


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How examples are read; what is read, and its order, do not depend on it.

    threads: that read the examples of a batch, in each process; 0: one for each available core. Decoding frees
      Python's lock, so that a few threads suffice for most hosts.
    workers: processes that read whole batches in turn; 0: this one alone. For hosts of many cores, where the lock is
      the limit. They take seconds to start.
    prefetch: batches (of each worker) that are ready ahead of the step.
    """

    threads: int = 0
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self) -> None:
        for name, least in {"threads": 0, "workers": 0, "prefetch": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"reading.{name}={getattr(self, name)}: give {least} or more")

    @property
    def threads_of_each(self) -> int:
        return self.threads or max(1, available_cores() // max(1, self.workers))


def batches(
    source: grain.MapDataset,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: np.ndarray | None = None,
    reading: ReadOptions | None = None,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Example numbers [batch_size] and examples of each batch from `start_step` on, without end.

    Shuffled anew each epoch; what does not fill a batch is dropped. Batch s is a function of the seed and s alone: the
    same whether training started at step 0 or resumed at s, on however many processes, however it is read. The numbers
    are those of the whole batch; of the examples, only its `rows` are read (all by default).
    """
    if len(source) < batch_size:
        raise ValueError(f"batch_size={batch_size} is larger than the data set of {len(source)} examples.")
    reading = ReadOptions() if reading is None else reading
    read = _BatchReader(source, np.arange(batch_size) if rows is None else rows, reading.threads_of_each)
    order = grain.MapDataset.range(len(source)).shuffle(seed=seed).batch(batch_size, drop_remainder=True).repeat()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=reading.prefetch)
    dataset = order.map(read)[start_step:].to_iter_dataset(options)
    if reading.workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(reading.workers, reading.prefetch))
    return iter(dataset)


@dataclasses.dataclass(frozen=True)
class _BatchReader:
    """Numbers of a batch's examples -> the numbers, and its rows stacked."""

    source: grain.MapDataset
    rows: np.ndarray
    threads: int

    def __call__(self, numbers: np.ndarray) -> tuple[np.ndarray, Any]:
        wanted = numbers[self.rows].tolist()
        first = self.source[wanted[0]]
        batch = jax.tree.map(lambda x: np.empty((len(wanted), *x.shape), x.dtype), first)

        def put(row: int, example: Any) -> None:
            jax.tree.map(lambda all_rows, x: all_rows.__setitem__(row, x), batch, example)

        def fill(part: np.ndarray) -> None:
            for row in part.tolist():
                put(row, self.source[wanted[row]])

        put(0, first)
        parts = np.array_split(np.arange(1, len(wanted)), 8 * self.threads)  # small, so that all end together
        if self.threads == 1:
            fill(np.concatenate(parts))
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(fill, parts))  # the list raises what a thread raised
        return numbers, batch
