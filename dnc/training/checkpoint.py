"""Checkpoints: asynchronous, atomic, checked when read; those of measured steps are kept, and the newest few."""

import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from dnc import distributed, files
from dnc.training.state import TrainState
from dnc.types import Array, UInt32

_DIGESTS = "digests.json"  # of a checkpoint's files of metadata
_UNREAD = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them after everything else
_PATIENCE_SECONDS = 100 * 365 * 86_400  # Orbax measures by the wall clock, which can be set forward by years


class Restored(NamedTuple):
    """What a checkpoint held, and which newer ones are damaged, with the reason."""

    state: TrainState
    record: dict[str, Any]
    damaged: Mapping[int, str]


class Checkpoints:
    """Saves and restores a TrainState, with a small record as JSON, in `directory`; nothing is pickled.

    keep: steps whose checkpoints are never deleted; of the others the newest two stay. A checkpoint becomes visible
    only when it is whole, so a process killed while it saves leaves the one before. Each holds a digest of its arrays
    and of every file of metadata that is read: one whose bits have changed counts as damaged.
    """

    def __init__(self, directory: epath.Path, keep: Collection[int] = (), *, read_only: bool = False) -> None:
        policy = AnyPreservationPolicy([LatestN(n=2), CustomSteps(steps=sorted(keep))])
        saving = ocp.AsyncOptions(timeout_secs=_PATIENCE_SECONDS, post_finalization_callback=self._add_digests)
        options = (
            ocp.CheckpointManagerOptions(read_only=True, lightweight_initialize=True)
            if read_only
            else ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                cleanup_tmp_directories=True,
                async_options=saving,
                lightweight_initialize=True,  # the times in the other metadata are of no use, and may be damaged
            )
        )
        # Orbax wants absolute paths; a bucket's already are.
        self._directory = directory if "://" in os.fspath(directory) else directory.resolve()
        self._saving: int | None = None
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, state: TrainState, record: Mapping[str, Any]) -> None:
        """Starts a save and returns; the state may be donated to the next step at once."""
        if step not in self._manager.all_steps():
            record = {**record, "digest": _digest(state)}
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(step, args=items, force=True)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int) -> Restored:
        """The checkpoint of `step`, with the shapes and shardings of `like` (arrays or their abstract shapes).

        Raises FileNotFoundError if there is none, ValueError if it is damaged, OSError if one of its files cannot be
        read at all (permissions, a disk that fails).
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = self._restore(step, state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore())
        state, record = cast(TrainState, items["state"]), dict(items["record"])
        if record.pop("digest", None) != _digest(state):
            raise ValueError(_damaged(step, "its arrays are not those that were saved"))
        return Restored(state, record, {})

    def newest_record(self) -> dict[str, Any] | None:
        """The record of the newest checkpoint that has one; raises OSError as `restore` does."""
        for step in reversed(self.all_steps()):
            with suppress(ValueError):
                return dict(self._restore(step, record=ocp.args.JsonRestore())["record"])
        return None

    def restore_newest(self, like: TrainState) -> Restored | None:
        """The newest checkpoint that is whole; damaged ones that are newer are put aside. None if there is none at all.

        Raises OSError if all are damaged, or if a file cannot be read at all: then nothing is moved.
        """
        damaged: dict[int, str] = {}
        for step in reversed(steps := self.all_steps()):
            try:
                restored = self.restore(like, step)
            except ValueError as error:
                damaged[step] = str(error)
                continue
            self._put_aside(damaged)
            return restored._replace(damaged=damaged)
        if steps:
            raise OSError(
                f"none of the checkpoints {steps} in {self._directory} can be read: choose a new --workdir. "
                f"Of the newest: {damaged[steps[-1]]}"
            )
        return None

    def _restore(self, step: int, **items: Any) -> Any:
        if step not in self._manager.all_steps():
            raise FileNotFoundError(f"no checkpoint of step {step}: there are {self.all_steps()}")
        try:
            self._check_digests(step)
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # a damaged file can fail in any way
            self._read_everything(step)
            raise ValueError(_damaged(step, error)) from error

    def _add_digests(self) -> None:
        """Into the checkpoint that is being saved, before it becomes visible; the lead's alone."""
        names = f"{self._saving}", f"{self._saving}.orbax-checkpoint-tmp*"
        (folder,) = (found for name in names for found in self._directory.glob(name))
        metadata = [path for path in _files_in(folder) if path.parent.name != "d" and path.name not in _UNREAD]
        digests = {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in metadata}
        files.write_json(folder / _DIGESTS, digests)

    def _check_digests(self, step: int) -> None:
        folder = self._directory / str(step)
        if (folder / _DIGESTS).exists():
            metadata = {path.relative_to(folder).as_posix(): path for path in _files_in(folder)}
            for name, digest in dict(files.read_json(folder / _DIGESTS)).items():
                if name not in metadata or zlib.crc32(metadata[name].read_bytes()) != digest:
                    raise ValueError(f"{name} is not what was saved")

    def _read_everything(self, step: int) -> None:
        """Raises OSError, naming the file, where one is there and cannot be read: its content may be sound."""
        for path in _files_in(self._directory / str(step)):
            with path.open("rb") as file:
                while file.read(2**24):
                    pass

    def _put_aside(self, steps: Collection[int]) -> None:
        """Out of the way of the run, which will save these steps again; nothing is deleted."""
        if not steps:
            return
        if distributed.is_lead():
            aside = self._directory.parent / "damaged_checkpoints"
            aside.mkdir(exist_ok=True)
            for step in steps:
                (self._directory / str(step)).rename(aside / f"{step}_{os.getpid()}")
        distributed.wait_for_all("damaged checkpoints put aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits for the save in progress, if any."""
        self._manager.wait_until_finished()
        self._manager.close()


def _damaged(step: int, reason: object) -> str:
    line = (str(reason).strip() or repr(reason)).splitlines()[0]
    return f"the checkpoint of step {step} is damaged, or was written by a different dnc version: {line}"


def _files_in(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, in a bucket too; raises PermissionError for one that cannot be listed."""
    for path in folder.iterdir():
        yield from _files_in(path) if path.is_dir() else (path,)


def _digest(state: TrainState) -> int:
    """One number that changes with any bit of any array, and not with how the arrays are sharded."""
    sums = jax.device_get([_weighted_bits(leaf) for leaf in jax.tree.leaves(state)])
    return zlib.crc32(np.asarray(sums, np.uint32).tobytes())


@jax.jit
def _weighted_bits(x: Array) -> UInt32[Array, ""]:
    """sum_i (2 i + 1) bits(x_i) mod 2^32: odd weights let no single bit vanish, and sums take any order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)
