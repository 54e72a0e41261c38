"""The encoder of a run: while it is trained, and from any of its checkpoints."""

import json
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from dnc import distributed
from dnc.data.augment import standardise
from dnc.data.decode import centre_crop
from dnc.data.sources import ImageSource
from dnc.embedding import ImageEncoder, features_of
from dnc.training.build import Training, build
from dnc.training.checkpoint import Checkpoints
from dnc.types import Array, Float, UInt8

Embed = Callable[[nnx.State, nnx.State, np.ndarray], np.ndarray]


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

    Every process passes all images, embeds its share, and gets all features.
    """
    program = embedding_program(graphdef, mesh)

    def embed(params: nnx.State, rest: nnx.State, images: np.ndarray) -> np.ndarray:
        encode = partial(program, params, rest)
        return features_of(encode, images.__getitem__, np.arange(len(images)), images.shape[1], mesh)[0]

    return embed


def load_run(workdir: epath.Path) -> Training:
    """What the config in a run's folder names. Raises FileNotFoundError or ValueError where there is none that fits."""
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"workdir={workdir} has no config.json: give the --workdir of a run of dnc.train.")
    try:
        return build(ConfigDict(json.loads(path.read_text())))
    except (AttributeError, KeyError) as error:
        raise ValueError(f"{path} lacks an entry ({error}): the run is of another version of dnc") from error


def checkpoint_encoder(training: Training, workdir: epath.Path, mesh: Mesh, step: int | None = None) -> ImageEncoder:
    """The encoder of a run's checkpoint, the newest by default, with the preparation of its held-out images.

    Raises FileNotFoundError when the run has no checkpoint of that step.
    """
    graphdef, abstract = training.abstract(mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    step = checkpoints.latest_step() if step is None else step
    if step is None:
        raise FileNotFoundError(f"workdir={workdir} holds no checkpoint yet.")
    state = checkpoints.restore(abstract, step).state
    checkpoints.close()
    side = training.data.side

    def prepare(source: ImageSource, row: int) -> UInt8[np.ndarray, "s s 3"]:
        picture: Image.Image = source.picture(row, side)[0]
        return np.asarray(centre_crop(picture, side))

    return ImageEncoder(
        prepare=prepare,
        encode=partial(embedding_program(graphdef, mesh), state.params, state.rest),
        side=side,
        identity={"run": json.loads(training.config.to_json()), "step": int(state.step)},
    )
