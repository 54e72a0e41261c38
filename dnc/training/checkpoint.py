"""Checkpoints: asynchronous, atomic, checked when read; those of measured steps are kept, and the newest few."""

import os
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from dnc import distributed
from dnc.training.state import TrainState
from dnc.types import Array, UInt32


class Restored(NamedTuple):
    """What a checkpoint held, and which newer ones could not be read."""

    state: TrainState
    record: dict[str, Any]
    damaged: tuple[int, ...]


class Checkpoints:
    """Saves and restores a TrainState, with a small record as JSON, in `directory`; nothing is pickled.

    keep: steps whose checkpoints are never deleted; of the others the newest two stay. A checkpoint becomes visible
    only when it is whole, so a process killed while it saves leaves the one before. Each holds a digest of its arrays:
    one whose bits have changed counts as damaged.
    """

    def __init__(self, directory: epath.Path, keep: Collection[int] = (), *, read_only: bool = False) -> None:
        policy = AnyPreservationPolicy([LatestN(n=2), CustomSteps(steps=sorted(keep))])
        options = (
            ocp.CheckpointManagerOptions(read_only=True)
            if read_only
            else ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        )
        # Orbax wants absolute paths; a bucket's already are.
        self._directory = directory if "://" in os.fspath(directory) else directory.resolve()
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, state: TrainState, record: Mapping[str, Any]) -> None:
        """Starts a save and returns; the state may be donated to the next step at once."""
        if step not in self._manager.all_steps():
            record = {**record, "digest": _digest(state)}
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
            self._manager.save(step, args=items, force=True)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int) -> Restored:
        """The checkpoint of `step`, with the shapes and shardings of `like` (arrays or their abstract shapes).

        Raises FileNotFoundError if there is none, ValueError if it cannot be read.
        """
        if step not in self._manager.all_steps():
            raise FileNotFoundError(f"no checkpoint of step {step}: there are {self.all_steps()}")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=items)
            state, record = cast(TrainState, restored["state"]), dict(restored["record"])
            if record.pop("digest") != _digest(state):
                raise ValueError("its arrays are not those that were saved")
        except Exception as error:  # a damaged file can fail in any way
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise ValueError(
                f"the checkpoint of step {step} is damaged, or was written by a different dnc version: {reason}"
            ) from error
        return Restored(state, record, ())

    def restore_newest(self, like: TrainState) -> Restored | None:
        """The newest checkpoint that can be read; any newer ones are put aside. None if there is none at all.

        Raises OSError if there are some and none can be read.
        """
        damaged: list[int] = []
        for step in reversed(steps := self.all_steps()):
            try:
                restored = self.restore(like, step)
            except ValueError as error:
                logging.warning("%s", error)
                damaged.append(step)
                continue
            self._put_aside(damaged)
            return restored._replace(damaged=tuple(damaged))
        if steps:
            raise OSError(f"none of the checkpoints {steps} in {self._directory} can be read: choose a new --workdir")
        return None

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
