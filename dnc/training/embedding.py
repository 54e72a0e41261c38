"""Features of a run's held-out images, from any of its checkpoints, as one file."""

import json
import os

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from dnc import distributed
from dnc.data.augment import standardise
from dnc.models.embedding import make_embedder
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints


def embed_checkpoint(workdir: epath.Path, output: epath.Path, step: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Writes `features` [n, d], `labels_TASK` [n] and `class_names_TASK` [k] to an .npz file; returns step and shape.

    The file is written whole or not at all, and holds no pickles. Raises FileNotFoundError when workdir holds no run
    or no checkpoint of that step.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"workdir={workdir} has no config.json: give the --workdir of a run of dnc.train.")
    training = build(ConfigDict(json.loads(path.read_text())))
    mesh = distributed.data_mesh()
    graphdef, state = training.init()
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(jax.device_put(state, distributed.replicated(mesh)), step)
    checkpoints.close()

    images, labels = training.data.held_out()
    features = make_embedder(graphdef, standardise, mesh)(state.params, state.rest, images)
    arrays = {"features": features}
    for task, names in training.data.class_names.items():
        arrays |= {f"labels_{task}": np.asarray(labels[task]), f"class_names_{task}": np.asarray(list(names))}
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(os.fspath(scratch), **arrays)
    scratch.replace(output)
    return int(state.step), features.shape
