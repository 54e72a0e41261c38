"""Where a run's numbers go: JSON lines, TensorBoard, and a line or a bar for the person who waits."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

PACKAGES = ("dnc", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "ml_collections", "numpy")


def write_json(path: epath.Path, value: Any) -> None:
    """Writes atomically: a reader finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(value, indent=1) + "\n")
    scratch.replace(path)


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


class MetricWriter:
    """Appends metrics to metrics.jsonl and TensorBoard; lines after `start_step` of an interrupted run are dropped."""

    def __init__(self, workdir: epath.Path, start_step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        kept = []
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step_of(line) <= start_step]
        scratch = workdir / ".metrics.jsonl"
        scratch.write_text("".join(f"{line}\n" for line in kept))
        scratch.replace(self._path)
        self._board = SummaryWriter(os.fspath(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


def _step_of(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # the last line of a killed run can be cut short
        return float("inf")


class Progress:
    """A bar on a terminal, plain lines elsewhere, with what the metrics say and the time left."""

    def __init__(self, total: int, start: int) -> None:
        self._bar = tqdm(
            total=total, initial=start, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True, smoothing=0.1
        )
        self._total = total

    def update(self, step: int, metrics: Mapping[str, float], seconds_left: float | None) -> None:
        shown = f"loss {metrics['loss']:.4g}  {metrics['examples_per_second']:.0f} examples/s"
        if self._bar.disable:
            left = "" if seconds_left is None else f"  {clock(seconds_left)} left"
            print(f"step {step}/{self._total}  {shown}{left}", flush=True)
        else:
            self._bar.set_postfix_str(shown)
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
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
