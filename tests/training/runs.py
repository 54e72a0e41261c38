"""What a run has left in its folder, and a run that is killed on its way."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from dnc import distributed
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints
from dnc.training.state import TrainState


def one_device():
    return distributed.make_mesh(devices=jax.devices()[:1])


def metrics(workdir) -> list[dict]:
    """The whole lines of its log; none before it has one."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def saved_state(workdir, config, step: int | None = None) -> TrainState:
    """Of a checkpoint, the newest by default."""
    _, like = build(config).abstract(one_device())
    checkpoints = Checkpoints(epath.Path(workdir) / "checkpoints", read_only=True)
    state = checkpoints.restore(like, checkpoints.latest_step() if step is None else step).state
    checkpoints.close()
    return state


def assert_same_bits(actual, expected) -> None:
    for (path, leaf), other in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other), err_msg=jax.tree_util.keystr(path))


def kill_when(process: subprocess.Popen, is_due: Callable[[], bool]) -> None:
    """Kills a run, and all processes of its group, as soon as `is_due`; it must not have ended before."""
    while process.poll() is None and not is_due():
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
