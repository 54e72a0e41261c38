"""Features of images from a trained encoder: in the training loop, and from any checkpoint as one file."""

import dataclasses
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dnc import distributed
from dnc.data.augment import standardise
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints
from dnc.types import Array, Float, UInt8

Embed = Callable[[nnx.State, nnx.State, np.ndarray], np.ndarray]
EMBEDDED_AT_ONCE = 576  # images, over all devices


def embedding_program(graphdef: nnx.GraphDef, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted (params, rest, images uint8 [b, h, w, 3]) -> features float32 [b, d], whole on every device.

    Statistics of normalisation layers are the running ones: a feature does not depend on the other images.
    """

    @partial(jax.jit, out_shardings=distributed.replicated(mesh))
    def embed_batch(params: nnx.State, rest: nnx.State, images: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        network = nnx.merge(graphdef, params, rest, copy=True)
        return network.encoder(standardise(images.astype(jnp.float32) / 255.0), train=False)

    return embed_batch


def make_embedder(graphdef: nnx.GraphDef, mesh: Mesh) -> Embed:
    """A function (params, rest, images uint8 [n, h, w, 3]) -> features float32 [n, d] of a network's encoder.

    The last batch is padded with repeated images and cut again, so that one program serves any n. Every process passes
    all images, embeds its share, and gets all features.
    """
    batch_size = max(EMBEDDED_AT_ONCE // mesh.size, 1) * mesh.size
    rows = distributed.local_rows(mesh, batch_size)
    embed_batch = embedding_program(graphdef, mesh)

    def embed(params: nnx.State, rest: nnx.State, images: np.ndarray) -> np.ndarray:
        features = []
        for start in range(0, len(images), batch_size):
            block = images[start : start + batch_size]
            padded = np.concatenate([block, np.repeat(block[-1:], batch_size - len(block), axis=0)])
            batch = distributed.shard_batch(mesh, padded[rows])
            features.append(np.asarray(embed_batch(params, rest, batch))[: len(block)])
        return np.concatenate(features)

    return embed


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What `embed_checkpoint` wrote."""

    step: int
    shape: tuple[int, ...]
    measured_normalized: bool  # the run's own measurements divide each row by its norm; the file holds raw features


def embed_checkpoint(workdir: epath.Path, output: epath.Path, step: int | None = None) -> Embedded:
    """Writes raw `features` [n, d], `labels_TASK` [n] and `class_names_TASK` [k] to an .npz file.

    The file is written whole or not at all, and holds no pickles. Raises FileNotFoundError when workdir holds no run
    or no checkpoint of that step.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"workdir={workdir} has no config.json: give the --workdir of a run of dnc.train.")
    try:
        training = build(ConfigDict(json.loads(path.read_text())))
    except (AttributeError, KeyError) as error:
        raise ValueError(f"{path} lacks an entry ({error}): the run is of another version of dnc") from error
    mesh = distributed.make_mesh()
    graphdef, abstract = training.abstract(mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = checkpoints.latest_step() if step is None else step
    if step is None:
        raise FileNotFoundError(f"workdir={workdir} holds no checkpoint yet.")
    state = checkpoints.restore(abstract, step).state
    checkpoints.close()

    images, labels = training.data.held_out()
    features = make_embedder(graphdef, mesh)(state.params, state.rest, images)
    arrays: dict[str, Any] = {"features": features}
    for task, names in training.data.class_names.items():
        arrays |= {f"labels_{task}": np.asarray(labels[task]), f"class_names_{task}": np.asarray(list(names))}
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(os.fspath(scratch), **arrays)
    scratch.replace(output)
    return Embedded(int(state.step), features.shape, bool(training.config.measure.normalize))
