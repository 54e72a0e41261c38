"""Training batches in an order that depends on the seed and the step only, read by all cores."""

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
    """What training needs from a data set."""

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """The labelings and their classes."""
        ...

    @property
    def side(self) -> int:
        """Pixels per side of what the network sees."""
        ...

    def source(self) -> grain.MapDataset:
        """Examples by index, as dicts of NumPy arrays."""
        ...

    def make_views(self, batch: Any, key: Key[Array, ""]) -> Batch:
        """Views of every example of a batch, and labels; pure, jitted into the training step."""
        ...

    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Evaluation images, uint8 [n, h, w, 3], and labels [n] for each labeling."""
        ...

    def held_out_labels(self) -> Mapping[str, np.ndarray]:
        """The labels of `held_out`, without reading any image."""
        ...

    def held_out_images(self) -> ImageSource:
        """The evaluation images as they are, not cropped or resized."""
        ...

    def training_images(self, examples: int) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """That many training images, prepared as those of `held_out`: always the same, balanced over classes."""
        ...


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How examples are read; which ones, and in what order, does not depend on it.

    threads: per process, reading the examples of a batch; 0: one per available core. Decoding releases Python's lock,
      so that a few threads suffice on most hosts.
    workers: processes that read whole batches in turn; 0: only this one. For hosts with many cores, where the lock is
      the limit. They take seconds to start.
    prefetch: batches (per worker) kept ready ahead of the step.
    """

    threads: int = 0
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self) -> None:
        for name, minimum in {"threads": 0, "workers": 0, "prefetch": 1}.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"reading.{name}={getattr(self, name)}: give {minimum} or more")

    @property
    def threads_per_process(self) -> int:
        return self.threads or max(1, available_cores() // max(1, self.workers))


def batches(
    source: grain.MapDataset,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: np.ndarray | None = None,
    reading: ReadOptions | None = None,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Example numbers [batch_size] and examples of each batch from `start_step` on, endlessly.

    Reshuffled each epoch; an incomplete last batch is dropped. Batch s depends on the seed and s only: it is the same
    whether training started at step 0 or resumed at s, on any number of processes, with any `reading`. The numbers are
    those of the whole batch; of the examples, only its `rows` are read (all by default).
    """
    if len(source) < batch_size:
        raise ValueError(f"batch_size={batch_size} is larger than the data set of {len(source)} examples.")
    reading = ReadOptions() if reading is None else reading
    read = _BatchReader(source, np.arange(batch_size) if rows is None else rows, reading.threads_per_process)
    order = grain.MapDataset.range(len(source)).shuffle(seed=seed).batch(batch_size, drop_remainder=True).repeat()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=reading.prefetch)
    dataset = order.map(read)[start_step:].to_iter_dataset(options)
    if reading.workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(reading.workers, reading.prefetch))
    return iter(dataset)


@dataclasses.dataclass(frozen=True)
class _BatchReader:
    """The numbers of a batch's examples -> the same numbers, and its `rows` stacked."""

    source: grain.MapDataset
    rows: np.ndarray
    threads: int

    def __call__(self, numbers: np.ndarray) -> tuple[np.ndarray, Any]:
        wanted = numbers[self.rows].tolist()
        first = self.source[wanted[0]]
        batch = jax.tree.map(lambda x: np.empty((len(wanted), *x.shape), x.dtype), first)

        def put(row: int, example: Any) -> None:
            jax.tree.map(lambda column, x: column.__setitem__(row, x), batch, example)

        def fill(part: np.ndarray) -> None:
            for row in part.tolist():
                put(row, self.source[wanted[row]])

        put(0, first)
        parts = np.array_split(np.arange(1, len(wanted)), 8 * self.threads)  # small: all threads finish together
        if self.threads == 1:
            fill(np.concatenate(parts))
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(fill, parts))  # list() re-raises what a thread raised
        return numbers, batch
