"""The encoder of a run: while it is trained, and from any of its checkpoints."""

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from dnc import distributed, files
from dnc.data.recorded import RecordedData
from dnc.data.sources.base import ImageSource
from dnc.data.sources.decode import center_crop
from dnc.data.views.augment import standardize_pixels
from dnc.features import sets
from dnc.features.embedding import ImageEncoder, features_of
from dnc.features.shards import digest
from dnc.objectives.base import Network
from dnc.objectives.online_probe import ProbedNetwork
from dnc.training import own_code
from dnc.training.build import Training, build
from dnc.training.checkpoint import Checkpoints
from dnc.training.state import TrainState
from dnc.training.workdir import recorded_config
from dnc.types import Array, Float, Key, UInt8

Embed = Callable[[nnx.State, nnx.State, np.ndarray], np.ndarray]
EmbedViews = Callable[[nnx.State, nnx.State], np.ndarray]
VIEWS = 10  # of each image
PATHLESS = ("digits", "multitask")  # data sets that open no path


def embedding_program(graphdef: nnx.GraphDef, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted (params, rest, images uint8 [b, h, w, 3]) -> features float32 [b, d], whole on every device.

    Statistics of normalization layers are the running ones: a feature does not depend on the other images.
    """

    @partial(jax.jit, out_shardings=distributed.replicated(mesh))
    def embed_batch(params: nnx.State, rest: nnx.State, images: UInt8[Array, "b h w c"]) -> Float[Array, "b d"]:
        network = nnx.merge(graphdef, params, rest, copy=True)
        return network.encoder(_standardized(images), train=False)

    return embed_batch


def _standardized(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return standardize_pixels(images.astype(jnp.float32) / 255.0)


def make_embedder(graphdef: nnx.GraphDef, mesh: Mesh) -> Embed:
    """A function (params, rest, images uint8 [n, h, w, 3]) -> features float32 [n, d] of a network's encoder.

    Every process passes all images, embeds its share, and gets all features.
    """
    program = embedding_program(graphdef, mesh)

    def embed(params: nnx.State, rest: nnx.State, images: np.ndarray) -> np.ndarray:
        encode = partial(program, params, rest)
        return features_of(encode, images.__getitem__, np.arange(len(images)), images.shape[1:3], mesh)[0]

    return embed


def make_view_embedder(training: Training, graphdef: nnx.GraphDef, mesh: Mesh, images: int) -> EmbedViews:
    """A function (params, rest) -> features [images, VIEWS, d] of augmented views of training images, for LiDAR.

    The images are spread evenly over the training set, and their views always the same; as in evaluation, statistics
    of normalization layers are the running ones. Raises ValueError for more images than there are.
    """
    source = training.data.source()
    if images > len(source):
        raise ValueError(f"measure.lidar_examples={images}: there are {len(source)} training examples")
    padded = -(-images // mesh.size) * mesh.size
    spread = np.linspace(0, len(source) - 1, images).astype(int)
    rows = spread[np.minimum(distributed.local_rows(mesh, padded), images - 1)]
    batch = distributed.shard_batch(mesh, jax.tree.map(lambda *x: np.stack(x), *(source[int(row)] for row in rows)))

    @partial(jax.jit, out_shardings=distributed.replicated(mesh))
    def embed_views(params: nnx.State, rest: nnx.State, batch: Any) -> Float[Array, "b q d"]:
        def of(key: Key[Array, ""]) -> Float[Array, "v b d"]:
            shown = training.data.make_views(batch, key)["views"]
            network = nnx.merge(graphdef, params, rest, copy=True)
            return jax.lax.map(lambda view: network.encoder(view, train=False), shown)

        drawn = len(jax.eval_shape(of, jax.random.key(0)))
        features = jax.lax.map(of, jax.random.split(jax.random.key(training.config.seed), -(-VIEWS // drawn)))
        return jnp.moveaxis(features.reshape(-1, *features.shape[2:]), 0, 1)[:images, :VIEWS]

    return lambda params, rest: np.asarray(embed_views(params, rest, batch), np.float32)


def load_run(
    workdir: epath.Path, *, images: bool = True, trusted: bool = False, imported: Collection[str] = ()
) -> Training:
    """What the config in a run's folder names. Raises FileNotFoundError or ValueError where there is none that fits.

    A run's folder is data and may come from anyone: it runs no code and opens no path that the caller has not allowed.

    images: whether those of the run are needed. Without them nothing but the folder is opened, so that an encoder can
      be used where it was not trained; a folder without data.json, of an earlier version, needs them all the same.
    trusted: whether they may be opened where the config says. Sets that come with dnc (PATHLESS) always may.
    imported: modules that the config may name, as in "package.module:Class".
    """
    read = recorded_config(workdir)
    if read is None:
        raise FileNotFoundError(f"workdir={workdir} has no config.json: give the --workdir of a run of dnc train")
    try:
        config: Any = ConfigDict(read)
        recorded = workdir / "data.json"
        reads_data = images or not recorded.exists()
        own_code.refuse_others(config, ("model", "objective", *(["data"] if reads_data else [])), imported)
        if reads_data and not trusted and config.data.name not in PATHLESS:
            needed = "its held-out images" if images else "the images, as there is no data.json"
            raise ValueError(
                f"workdir={workdir}: its config says where to open {needed}: {_paths(config.data)}. If you trust it, "
                "give --run_images; else name images of your own, --images=..."
            )
        if reads_data:
            return build(config)
        return build(config, RecordedData(**files.read_json(recorded)))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{workdir} lacks an entry ({error}): the run is of another version of dnc") from error


def _paths(data: ConfigDict) -> str:
    """The entries of config.data that may be paths."""
    return ", ".join(f"{key}={value!r}" for key, value in data.items() if isinstance(value, str | list | tuple))


def network_layers(network: Any, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
    """The layers of a network's encoder, and of its projector where it has one; see `Encoder.layers`."""
    found = network.encoder.layers(images)
    if (headed := _with_projector(network)) is not None:
        found |= headed.head_layers(network.encoder(images, train=False))
    return found


def network_heads(network: Any, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
    """The encoder's feature and, where the network has one, what its projector makes of it."""
    found = {"backbone": network.encoder(images, train=False)}
    if (headed := _with_projector(network)) is not None:
        found["projector"] = headed.head(found["backbone"], train=False)
    return found


def _with_projector(network: Any) -> Network | None:
    """The objective's own network, where it is an encoder with a projector."""
    own = network.network if isinstance(network, ProbedNetwork) else network
    return own if isinstance(own, Network) else None


def checkpoint_encoder(
    training: Training,
    workdir: epath.Path,
    mesh: Mesh,
    step: int | None = None,
    chosen: sets.Choice | None = None,
) -> ImageEncoder:
    """The encoder of a run's checkpoint, the newest by default, with the preparation of its held-out images.

    chosen: which layers and tokens to take, those of the projector among them; the encoder's feature by default.

    Raises FileNotFoundError when the run has no checkpoint of that step.
    """
    graphdef, (state,) = _states(training, workdir, mesh, lambda found: [found[-1] if step is None else step])

    def layers(states: Any, images: UInt8[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        network = nnx.merge(graphdef, *states[0], copy=True)
        standard = _standardized(images)
        if chosen is None:
            return {"features": network.encoder(standard, train=False)}
        return chosen.of(network_layers(network, standard))

    return _image_encoder(training, mesh, [state], layers, {"step": int(state.step)}, one_set=chosen is None)


def trajectory_encoder(
    training: Training, workdir: epath.Path, mesh: Mesh, steps: Sequence[int] | None = None
) -> ImageEncoder:
    """Backbone and projector of a run at several checkpoints, all by default, as feature sets "step00100.backbone".

    The weights of all these steps are held at once. Raises FileNotFoundError when the run lacks one.
    """
    graphdef, states = _states(training, workdir, mesh, lambda found: steps or found)
    names = [f"step{int(state.step):05}" for state in states]

    def layers(states: Any, images: UInt8[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        standard = _standardized(images)
        return {
            f"{name}.{head}": x
            for name, state in zip(names, states, strict=True)
            for head, x in network_heads(nnx.merge(graphdef, *state, copy=True), standard).items()
        }

    return _image_encoder(training, mesh, states, layers, {"steps": [int(state.step) for state in states]})


def _states(
    training: Training, workdir: epath.Path, mesh: Mesh, choose: Callable[[list[int]], Sequence[int]]
) -> tuple[nnx.GraphDef, list[TrainState]]:
    """Of the checkpoints that `choose` takes of the run's steps."""
    graphdef, abstract = training.abstract(mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    if not (found := checkpoints.all_steps()):
        raise FileNotFoundError(f"workdir={workdir} holds no checkpoint yet.")
    states = [checkpoints.restore(abstract, step).state for step in choose(found)]
    checkpoints.close()
    return graphdef, states


def _image_encoder(
    training: Training,
    mesh: Mesh,
    states: Sequence[TrainState],
    layers: Callable[[Any, Array], dict[str, Array]],
    steps: dict[str, Any],
    one_set: bool = False,
) -> ImageEncoder:
    """What `layers` makes of images with these states' weights."""
    side = training.data.side
    weights = [(state.params, state.rest) for state in states]
    encode = jax.jit(
        lambda weights, images: sets.side_by_side(layers(weights, images)), out_shardings=distributed.replicated(mesh)
    )
    widths = {} if one_set else sets.widths(partial(layers, weights), (side, side))

    def prepare(source: ImageSource, row: int) -> UInt8[np.ndarray, "s s 3"]:
        picture: Image.Image = source.picture(row, side)[0]
        return np.asarray(center_crop(picture, side))

    return ImageEncoder(
        prepare=prepare,
        encode=partial(encode, weights),
        size=(side, side),
        identity={
            "run": json.loads(training.config.to_json()),
            **steps,
            "weights": digest(np.asarray(x).tobytes() for x in jax.tree.leaves(weights)),
            **({"features": ", ".join(widths)} if widths else {}),
        },
        sets=widths,
    )
