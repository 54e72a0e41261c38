"""What happened since the last line of the log: metrics still on the device, and where the time went."""

import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

WATCHED = ("loss", "gradient_norm", "parameter_norm")  # finite at every step, or the run stops
INPUT_BOUND = 0.2  # share of the running time that waiting for examples may take


class NonFiniteLossError(FloatingPointError):
    """Training diverged; the message names the step, and the last good checkpoint."""


def diverged(step: int, problem: str, good_checkpoint: int | None) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"step {step}: {problem}. Training has stopped; the last good checkpoint is of step {good_checkpoint}. "
        "Lower schedule.peak or set optimizer.clip_norm."
    )


class Window:
    """Metrics and timing of the steps since the last line of the log.

    The metrics depend on nothing but the steps: `pending` goes into a checkpoint and comes back, so that the lines of
    an interrupted run are those of an unbroken one. Timing is of this process and starts anew.
    """

    def __init__(self, total: int, batch_size: int, pending: Sequence[Mapping[str, Any]] = ()) -> None:
        self._total, self._batch_size = total, batch_size
        self._steps: list[Mapping[str, Any]] = list(pending)
        self._seconds: dict[str, float] = {}
        self._since, self._timed = time.perf_counter(), 0
        self._pace: list[tuple[int, float]] = []  # (steps, seconds) of the windows so far; the first one compiles

    @contextmanager
    def spent(self, item: str) -> Iterator[None]:
        """Adds the time of its block to one item of the breakdown."""
        started = time.perf_counter()
        yield
        self._seconds[item] = self._seconds.get(item, 0.0) + time.perf_counter() - started

    def add(self, metrics: Mapping[str, jax.Array], numbers: np.ndarray) -> None:
        """One step's metrics and the numbers of its examples."""
        examples = zlib.crc32(np.ascontiguousarray(numbers, np.int64).tobytes())
        self._steps.append({**metrics, "examples": examples})
        self._timed += 1

    def pending(self, step: int, good_checkpoint: int | None) -> list[dict[str, Any]]:
        """Every step's metrics as numbers; raises NonFiniteLossError at the first that is not finite in WATCHED."""
        on_host = jax.device_get(self._steps)
        steps = [{name: np.asarray(value).item() for name, value in metrics.items()} for metrics in on_host]
        for number, metrics in enumerate(steps, start=step - len(steps) + 1):
            if not all(np.isfinite(metrics[name]) for name in WATCHED):
                values = ", ".join(f"{name} {metrics[name]}" for name in WATCHED)
                raise diverged(number, values, good_checkpoint)
        self._steps = list(steps)
        return steps

    def metrics(self, step: int, good_checkpoint: int | None) -> dict[str, Any]:
        """Means over the window, and one checksum of the numbers of its examples in their order; see `pending`."""
        steps = self.pending(step, good_checkpoint)
        examples = zlib.crc32(np.array([metrics.pop("examples") for metrics in steps], np.uint32).tobytes())
        self._steps = []
        means = {name: float(np.mean([metrics[name] for metrics in steps])) for name in steps[0]}
        return {**means, "examples": f"{examples:08x}"}

    def timing(self) -> dict[str, float]:
        """Examples per second, and where the time went: waiting for input and the step itself, per step; whole pauses.

        Call after `metrics`, which waits for the device. Starts the next window.
        """
        elapsed, steps = time.perf_counter() - self._since, max(self._timed, 1)
        pauses = {f"{name}_seconds": value for name, value in self._seconds.items() if name != "input"}
        running, waiting = elapsed - sum(pauses.values()), self._seconds.get("input", 0.0)
        self._pace.append((self._timed, running))
        self._seconds, self._since, self._timed = {}, time.perf_counter(), 0
        return {
            "examples_per_second": steps * self._batch_size / running,
            "input_seconds_per_step": waiting / steps,
            "step_seconds_per_step": (running - waiting) / steps,
            "input_share": waiting / running,
            **pauses,
        }

    def seconds_left(self, step: int) -> float | None:
        """None while only the first window is known."""
        steps, seconds = sum(n for n, _ in self._pace[1:]), sum(s for _, s in self._pace[1:])
        return seconds / steps * (self._total - step) if steps else None
