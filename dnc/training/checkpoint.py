"""Checkpoints: asynchronous, atomic, the measured steps kept for ever and the newest few besides."""

import os
from collections.abc import Collection
from typing import cast

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from dnc.training.state import TrainState


class Checkpoints:
    """Saves and restores a TrainState in `directory`; nothing is pickled.

    keep: steps whose checkpoints are never deleted; of the others the newest two stay. A checkpoint becomes visible
    only when it is whole, so a process killed while it saves leaves the one before.
    """

    def __init__(self, directory: epath.Path, keep: Collection[int] = (), *, read_only: bool = False) -> None:
        policy = AnyPreservationPolicy([LatestN(n=2), CustomSteps(steps=sorted(keep))])
        options = (
            ocp.CheckpointManagerOptions(read_only=True)
            if read_only
            else ocp.CheckpointManagerOptions(preservation_policy=policy, cleanup_tmp_directories=True)
        )
        if "://" not in os.fspath(directory):
            directory = directory.resolve()  # Orbax wants absolute paths; a bucket's are as they are
        self._manager = ocp.CheckpointManager(directory, options=options)

    def save(self, step: int, state: TrainState) -> None:
        """Starts a save and returns; the state may be donated to the next step at once."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state saved at `step` (the newest by default), with the shapes and shardings of `like`."""
        step = self.latest_step() if step is None else step
        if step is None or step not in self._manager.all_steps():
            raise FileNotFoundError(f"No checkpoint of step {step}: there are {self.all_steps()}.")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return cast(TrainState, self._manager.restore(step, args=ocp.args.StandardRestore(abstract)))

    def close(self) -> None:
        """Waits for the save under way, if any."""
        self._manager.wait_until_finished()
        self._manager.close()
