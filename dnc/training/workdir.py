"""A run's folder: one run of one config at a time, and what it records of itself."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from dnc.data.recorded import record
from dnc.files import write_json
from dnc.training.build import Config, Training
from dnc.training.writers import environment


@contextmanager
def claimed(workdir: epath.Path) -> Iterator[None]:
    """Holds the folder for this process; the claim ends with the process, however that ends.

    Raises BlockingIOError when another process trains there. A bucket, which knows no locks, is not claimed.
    """
    if "://" in os.fspath(workdir):
        yield
        return
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"workdir={workdir} is in use by another process: wait for it, or choose another --workdir"
            ) from error
        yield


def record_run(workdir: epath.Path, training: Training) -> None:
    """Writes config.json and data.json, once, and environment.json."""
    if not (workdir / "config.json").exists():
        write_json(workdir / "config.json", json.loads(training.config.to_json()))
    if not (workdir / "data.json").exists():
        write_json(workdir / "data.json", dataclasses.asdict(record(training.data)))
    write_json(workdir / "environment.json", environment())


def refuse_other_config(workdir: epath.Path, config: Config) -> None:
    """Raises ValueError, naming the differences, when the folder holds a run of another config."""
    path = workdir / "config.json"
    if not path.exists():
        return
    if differences := list(_differences(json.loads(path.read_text()), json.loads(config.to_json()))):
        raise ValueError(
            f"workdir={workdir} holds a run of another config: {'; '.join(differences)}. "
            "Choose a new --workdir, or give the old settings to continue."
        )


def _differences(theirs: Any, ours: Any, path: str = "config") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}")
    elif theirs != ours:
        yield f"{path} was {theirs!r} and is now {ours!r}"
