"""Small runs of every objective, what a run has left in its folder, and a run that is killed on its way."""

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
from ml_collections import ConfigDict

from configs import clip_multitask, directional_multitask, siglip_multitask, supervised_multitask, vicreg_multitask
from dnc import distributed
from dnc.training import loop
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints
from dnc.training.state import TrainState
from tests.training import tiny

DEPTH = tiny.get_config().model.depth  # of the ResNet, in ARCHITECTURES
SMALL_TEXT = {"features": 16, "text_width": 16, "text_depth": 1}
DINO = dict(name="dino", prototypes=32, hidden=16, bottleneck=8)
OBJECTIVES = {
    "simclr": tiny.get_config().objective.to_dict(),
    "vicreg": vicreg_multitask.get_config().objective.to_dict() | {"widths": (16, 16, 16)},
    "directional": directional_multitask.get_config().objective.to_dict() | {"widths": (16, 16, 16)},
    "clip": clip_multitask.get_config().objective.to_dict() | SMALL_TEXT,
    "siglip": siglip_multitask.get_config().objective.to_dict() | SMALL_TEXT,
    "supervised": supervised_multitask.get_config().objective.to_dict(),
    "mae": dict(name="mae", decoder_width=16, decoder_depth=1, decoder_heads=2),
    "ijepa": dict(name="ijepa", targets=2, predictor_width=16, predictor_depth=1, predictor_heads=2),
    "dino": DINO | dict(freeze_last_layer=0.3, ibot_weight=1.0, koleo_weight=0.1),
    "dino, sinkhorn": DINO | dict(centering="sinkhorn"),
}


def config_of(name: str) -> ConfigDict:
    """Not locked: the quickstart's with this objective, and the smallest network that it can train."""
    config = tiny.get_config().unlock()
    config.objective = OBJECTIVES[name]
    name = config.objective.name
    config.data.captions = name in ("clip", "siglip")
    if name in ("mae", "ijepa", "dino"):
        config.model = dict(name="vit", image_size=16, patch_size=4, width=16, depth=1, heads=2, dtype="float32")
        config.model.mask_token = name == "dino"
        if name == "ijepa":
            config.model.update(class_token=False, pool="mean")
    return config


def one_device():
    return distributed.make_mesh(devices=jax.devices()[:1])


def metrics(workdir) -> list[dict]:
    """The whole lines of its log; none before it has one."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def trained(workdir) -> list[dict]:
    """Those of its lines that are of training, one for every logged step; the others are of measured steps."""
    return [line for line in metrics(workdir) if "loss" in line]


def stop_after_every_step(config, workdir) -> None:
    """A whole run, its first three steps each in a run of its own."""
    workdir = epath.Path(workdir)
    plan = loop.prepare(config, workdir, one_device())
    for number in range(3):
        assert not loop.run(plan, workdir, one_device(), stop_after=0.0)
        assert len(trained(workdir)) <= number + 1
    assert loop.run(plan, workdir, one_device())


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
