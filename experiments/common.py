"""What experiments share: flags alone as arguments, the files of their results, runs that are trained once."""

import importlib
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, logging
from etils import epath
from ml_collections import ConfigDict
from sklearn.datasets import load_digits

from dnc import distributed, files
from dnc.data.pipeline import batches
from dnc.features.files import read_features
from dnc.record import plain
from dnc.report import run
from dnc.report.run import Run
from dnc.training import loop
from dnc.training.build import build

_PACED = 5  # steps that are timed


def main(experiment: Callable[[], None]) -> None:
    """Run `experiment` after reading the flags; other arguments are an error."""

    def checked(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {argv[1:]}")
        experiment()

    app.run(checked)


def save(folder: str, name: str, record: Any, lines: Sequence[str] | None = None, svg: str | None = None) -> None:
    """Write NAME.json, and NAME.md and NAME.svg where they are given; print the Markdown. nan becomes null in JSON."""
    path = epath.Path(folder) / name
    files.write_json(path.with_suffix(".json"), plain(record))
    if svg is not None:
        files.write_text(path.with_suffix(".svg"), svg)
    if lines is not None:
        files.write_text(path.with_suffix(".md"), text := "\n".join(lines) + "\n")
        print(text)


def saved(folder: str, name: str, default: Any) -> Any:
    """What an earlier `save` wrote into NAME.json, else `default`."""
    path = epath.Path(folder) / f"{name}.json"
    return files.read_json(path) if path.exists() else default


def named_features(argument: str) -> tuple[str, Any, Any]:
    """Name, features and labels of an argument NAME=features.npz; `digits` without a file is scikit-learn's."""
    name, _, path = argument.partition("=")
    if path:
        file = read_features(pathlib.Path(path))
        return name, file.features, file.labels
    if name != "digits":
        raise app.UsageError(f"{name}: name a file, {name}=features.npz")
    features, labels = load_digits(return_X_y=True)
    return name, features, labels


def optional(module: str, requirement: str) -> Any:
    """A module that only some experiments need; where it is missing, the program ends and says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}. This experiment needs it: pip install {requirement}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def machine(**versions: str) -> dict[str, str]:
    """Where and when numbers were measured, and with which versions of which libraries."""
    libraries = [f"{name} {version}" for name, version in versions.items()]
    cores = f"{distributed.available_cores()} cores"
    chips = [f"{jax.device_count()} {accelerator()}"] if accelerator() else []
    return {
        "machine": ", ".join([*chips, cores, platform.processor() or platform.machine(), *libraries]),
        "date": time.strftime("%Y-%m-%d"),
    }


def accelerator() -> str:
    """The kind of the devices, "NVIDIA H100 80GB HBM3"; empty where they are CPUs."""
    device = jax.devices()[0]
    return "" if device.platform == "cpu" else device.device_kind


def beside(name: str) -> str:
    """`name` on CPUs; on accelerators with their kind, so that no file of another machine is overwritten."""
    return "_".join([name, *accelerator().lower().split()])


def is_complete(workdir: epath.PathLike) -> bool:
    return (epath.Path(workdir) / "report" / "index.html").exists()


def seconds_per_step(config: Any) -> float:
    """The median over a few steps, reading included, compilation not."""
    training, mesh = build(config), distributed.make_mesh()
    graphdef, _ = training.abstract(mesh)
    state, step, size = training.init(mesh), training.step(graphdef), config.train.batch_size
    examples = batches(training.data.source(), size, config.seed, reading=training.reading)
    seconds = []
    for _ in range(1 + _PACED):
        started = time.perf_counter()
        _, batch = next(examples)
        state, metrics = step(state, distributed.shard_batch(mesh, batch))
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def trained(config: ConfigDict, workdir: epath.PathLike) -> Run:
    """The run in `workdir`, trained first unless it is complete; an interrupted one continues."""
    if not is_complete(workdir):
        logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
        loop.train_and_evaluate(config, workdir)
    return run.load(pathlib.Path(workdir))
