"""Where a run's numbers go: JSON lines, TensorBoard, and a progress bar."""

import json
import os
import platform
import sys
from collections.abc import Collection, Mapping
from importlib import metadata
from types import MappingProxyType
from typing import Any

import jax
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

from dnc import distributed, distribution, files
from dnc.jsonable import plain

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml_collections", "numpy")


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "packages": {"dnc": distribution.VERSION} | {name: metadata.version(name) for name in PACKAGES},
    }


class MetricWriter:
    """Appends to metrics.jsonl, timing.jsonl and TensorBoard, in the lead process alone.

    metrics.jsonl is a function of the config: an interrupted run ends with the lines of an unbroken one. What a process
    took for it is in timing.jsonl. Lines after `start_step`, of a run that was interrupted, are dropped, and damaged
    ones; `lost` are the steps of `logged` that metrics.jsonl has no line of.
    """

    def __init__(self, workdir: epath.Path, start_step: int, logged: Collection[int] = ()) -> None:
        self._metrics, self._timing = workdir / "metrics.jsonl", workdir / "timing.jsonl"
        self._board, self.lost = None, []
        if distributed.is_lead():
            kept, _ = (_keep_lines(path, start_step) for path in (self._metrics, self._timing))
            self.lost = sorted(set(logged) - kept)
            self._board = SummaryWriter(os.fspath(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, metrics: Mapping[str, Any], timing: Mapping[str, float] = MappingProxyType({})) -> None:
        """A line of each file, but for those that have no values; a step may have several lines. nan becomes null."""
        if self._board is None:
            return
        for path, values in ((self._metrics, metrics), (self._timing, timing)):
            if values:
                if not path.exists():  # appending would begin a second history
                    raise FileNotFoundError(f"{path} was deleted or moved while the run wrote to it")
                with path.open("a") as file:
                    file.write(json.dumps(plain({"step": step, **values}), allow_nan=False) + "\n")
        for name, value in {**metrics, **timing}.items():
            if not isinstance(value, str):
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """To the disk: a checkpoint never outlives the lines before it."""
        if self._board is not None and self._metrics.exists():
            files.flush(self._metrics)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _keep_lines(path: epath.Path, last: int) -> set[int]:
    """Leaves the whole lines of steps to `last`, and returns these steps."""
    lines = {line: _step_of(line) for line in path.read_bytes().split(b"\n")} if path.exists() else {}
    kept = {line.decode(): step for line, step in lines.items() if step is not None and step <= last}
    files.write_text(path, "".join(f"{line}\n" for line in kept))
    return set(kept.values())


def _step_of(line: bytes) -> int | None:
    """None for a line that a killed process cut short, or that is damaged in another way."""
    try:
        step = json.loads(line.decode())["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


class Progress:
    """A bar on a terminal, plain lines elsewhere, with what the metrics say and the time left; the lead's alone."""

    def __init__(self, total: int, start: int) -> None:
        self._silent = not distributed.is_lead()
        self._bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            disable=self._silent or not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._total = total

    def update(
        self, step: int, metrics: Mapping[str, Any], timing: Mapping[str, float], seconds_left: float | None
    ) -> None:
        shown = f"loss {metrics['loss']:.4g}  {timing['examples_per_second']:.0f} examples/s"
        if self._bar.disable:
            left = "" if seconds_left is None else f"  {clock(seconds_left)} left"
            self.say(f"step {step}/{self._total}  {shown}{left}")
        else:
            self._bar.set_postfix_str(shown)
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        if self._silent:
            return
        if self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        self._bar.close()


def clock(seconds: float) -> str:
    """Minutes and seconds, as 7:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
