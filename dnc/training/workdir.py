"""A run's folder: one run of one config at a time, and what it records of itself."""

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from etils import epath

from dnc import files
from dnc.data.recorded import record
from dnc.training.build import Config, Training
from dnc.training.checkpoint import Checkpoints
from dnc.training.writers import environment


@contextmanager
def claimed(workdir: epath.Path) -> Iterator[None]:
    """Holds the folder for this process; the claim ends with the process, however that ends.

    Raises BlockingIOError when another process trains there. A bucket, which knows no locks, is not claimed.
    """
    if "://" in os.fspath(workdir):
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(files.locked(workdir))
        except BlockingIOError as error:
            raise BlockingIOError(
                f"workdir={workdir} is in use by another process: wait for it, or choose another --workdir"
            ) from error
        try:
            yield
        except Exception as error:
            if (workdir / files.LOCK).exists():
                raise
            raise FileNotFoundError(f"workdir={workdir} was deleted or moved while the run wrote to it") from error


def record_run(workdir: epath.Path, training: Training) -> list[str]:
    """Writes config.json and data.json where they are missing or damaged, or where no run has begun, and
    environment.json. Returns the names of those that a run had lost.
    """
    content = {
        "config.json": json.loads(training.config.to_json()),
        "data.json": dataclasses.asdict(record(training.data)),
    }
    begun, lost = _has_begun(workdir), [name for name in content if not _is_json(workdir / name)]
    for name in lost if begun else content:
        files.write_json(workdir / name, content[name])
    files.write_json(workdir / "environment.json", environment())
    return lost if begun else []


def recorded_config(workdir: epath.Path) -> dict[str, Any] | None:
    """The config of the run in a folder: config.json or, where that is missing or damaged, what a checkpoint holds.

    None where there is neither. Raises ValueError naming a config.json that is damaged and recorded nowhere else.
    """
    try:
        return files.read_json(workdir / "config.json")
    except (FileNotFoundError, ValueError) as error:
        if (workdir / "checkpoints").exists():
            checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
            newest = checkpoints.newest_record()
            checkpoints.close()
            if newest is not None:
                return newest["config"]
        if isinstance(error, ValueError):
            raise
        return None


def refuse_other_config(workdir: epath.Path, config: Config) -> None:
    """Raises ValueError, naming the differences, when the folder holds a run of another config.

    A start that failed before it measured or saved anything is not a run.
    """
    if not _has_begun(workdir):
        return
    recorded = recorded_config(workdir)
    if recorded is None:
        raise ValueError(
            f"workdir={workdir} holds measurements, and neither config.json nor a checkpoint tells of which config: "
            "choose a new --workdir"
        )
    if differences := list(_differences(recorded, json.loads(config.to_json()))):
        raise ValueError(
            f"workdir={workdir} holds a run of another config: {'; '.join(differences)}. "
            "Choose a new --workdir, or give the old settings to continue."
        )


def _has_begun(workdir: epath.Path) -> bool:
    patterns = ("measurements/step_*.json", "checkpoints/[0-9]*")
    return any(True for pattern in patterns for _ in workdir.glob(pattern))


def _is_json(path: epath.Path) -> bool:
    try:
        files.read_json(path)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _differences(theirs: Any, ours: Any, path: str = "config") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}")
    elif theirs != ours:
        yield f"{path} was {theirs!r} and is now {ours!r}"
