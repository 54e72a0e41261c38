"""I-JEPA: predict a teacher's tokens of some blocks of the image from the student's tokens of the rest."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.precision import at_least_float32
from dnc.models.predictors import JEPAPredictor
from dnc.models.vit import ViT
from dnc.objectives.base import Objective, progress_of, vision_transformer
from dnc.objectives.teacher import check_momentum, ema_update, linear, make_teacher
from dnc.types import Array, Batch, Bool, Float, Int, Key, Metrics

SIZES = 1000  # how many values the number that chooses a block's size takes


def block_sizes(grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]) -> np.ndarray:
    """Height and width, int [SIZES, 2], of a block for u = 1/(2 SIZES), 3/(2 SIZES), ...

    As in the authors' code one number u gives both the scale, scale[0] + u (scale[1] - scale[0]), and in the same way
    the aspect a = h/w: h = round(sqrt(p a)) and w = round(sqrt(p / a)) of p = int(scale * patches). Neither is larger
    than the grid; in the authors' code both are smaller, so that of 14 x 14 patches a context has at most 13 x 13.
    """
    sizes = []
    for u in (np.arange(SIZES) + 0.5) / SIZES:
        patches = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
        ratio = aspect[0] + u * (aspect[1] - aspect[0])
        h, w = round(math.sqrt(patches * ratio)), round(math.sqrt(patches / ratio))
        sizes.append((min(h, grid[0]), min(w, grid[1])))
    return np.array(sizes, np.int32)


class Blocks(NamedTuple):
    """Patch numbers of a context and of t target blocks for each image; the flags tell valid ones from padding."""

    context: Int[Array, "b m"]
    context_valid: Bool[Array, "b m"]
    targets: Int[Array, "b t s"]
    targets_valid: Bool[Array, "b t s"]


def sample_blocks(
    key: Key[Array, ""],
    examples: int,
    grid: tuple[int, int],
    *,
    targets: int = 4,
    target_scale: tuple[float, float] = (0.15, 0.2),
    target_aspect: tuple[float, float] = (0.75, 1.5),
    context_scale: tuple[float, float] = (0.85, 1.0),
) -> Blocks:
    """Target blocks, and a context block without the patches of any target (Assran et al. 2023, sec. 3).

    As in the authors' code the sizes are drawn once for the batch, one for all targets and one for the square context,
    and places for each image. It differs in three ways:

    - Arrays have the largest size that a draw can need, and flags, where the authors cut every context to the fewest
      patches that an image of the batch (on its device) has, in order of rows: here each keeps all, on any devices.
    - Blocks may be as large as the grid and reach its last row and column, which the authors' exclusive upper limits
      leave out: there, no block ever holds one of their patches.
    - A context of at most 10 patches is not drawn again. At the authors' settings, 14 x 14 or 16 x 16 patches, no draw
      leaves fewer than 9.

    Raises ValueError if a draw could leave a target or a context without any patch.
    """
    small = block_sizes(grid, target_scale, target_aspect)
    large = block_sizes(grid, context_scale, (1.0, 1.0))
    areas, n = small.prod(axis=1), grid[0] * grid[1]
    if areas.min() < 1 or large.prod(axis=1).min() <= targets * areas.max():
        raise ValueError(
            f"{targets} targets of up to {areas.max()} patches can cover a context of {large.prod(axis=1).min()}: "
            f"{grid[0]} x {grid[1]} patches are too few for target_scale={target_scale}, context_scale={context_scale}"
        )
    size_key, context_key, target_key = jax.random.split(key, 3)
    chosen = jax.random.randint(size_key, (2,), 0, SIZES)
    size, context_size = jnp.asarray(small)[chosen[0]], jnp.asarray(large)[chosen[1]]
    corners = _corners(target_key, (examples, targets), grid, size)
    taken = jnp.any(_covered(corners, size, grid), axis=1)
    context = _covered(_corners(context_key, (examples,), grid, context_size), context_size, grid) & ~taken
    most = min(int(large.prod(axis=1).max()), n - int(areas.min()))
    order = jnp.argsort(~context, axis=1, stable=True)[:, :most]

    index = jnp.arange(areas.max(), dtype=jnp.int32)[None, None]
    patches = (corners[..., :1] + index // size[1]) * grid[1] + corners[..., 1:] + index % size[1]
    valid = jnp.broadcast_to(index < size[0] * size[1], patches.shape)
    return Blocks(order, jnp.take_along_axis(context, order, axis=1), jnp.where(valid, patches, 0), valid)


def _corners(
    key: Key[Array, ""], shape: tuple[int, ...], grid: tuple[int, int], size: Int[Array, "2"]
) -> Int[Array, "*shape 2"]:
    """Top left corners of blocks of one size, uniform over all places in the grid."""
    room = jnp.asarray(grid, jnp.int32) - size + 1
    return jnp.stack([jax.random.randint(k, shape, 0, room[i]) for i, k in enumerate(jax.random.split(key))], axis=-1)


def _covered(corners: Int[Array, "*shape 2"], size: Int[Array, "2"], grid: tuple[int, int]) -> Bool[Array, "*shape n"]:
    """Which patches, row by row, lie in the blocks."""
    patch = np.indices(grid, np.int32).reshape(2, *(1,) * (corners.ndim - 1), -1)
    inside = [(patch[i] >= corners[..., i, None]) & (patch[i] < corners[..., i, None] + size[i]) for i in range(2)]
    return inside[0] & inside[1]


def feature_loss(
    predicted: Float[Array, "b t s d"], features: Float[Array, "b t s d"], valid: Bool[Array, "b t s"]
) -> Float[Array, ""]:
    """Mean over target patches and dimensions of the smooth L1 distance: d^2/2 where |d| < 1, |d| - 1/2 elsewhere."""
    errors = jnp.mean(optax.huber_loss(at_least_float32(predicted), at_least_float32(features)), axis=-1)
    return jnp.mean(errors, where=valid)


def standardized(features: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Layer normalization without parameters: (x - mean) / sqrt(var + 1e-5), the variance divided by d."""
    x = at_least_float32(features)
    return (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


class IJEPANetwork(nnx.Module):
    """The student and its predictor, and as `encoder` the teacher, which evaluation reads."""

    def __init__(self, student: ViT, predictor: JEPAPredictor):
        self.student = student
        self.predictor = predictor
        self.encoder = make_teacher(student)


@dataclasses.dataclass(frozen=True)
class IJEPA(Objective):
    """Predict the target encoder's tokens of four blocks from the rest of the image (Assran et al. 2023).

    Takes the first view of every example. The encoder is a ViT with pool="mean"; the paper's has class_token=False and
    position="sincos2d". The target encoder is a `teacher` of the encoder; its tokens are standardized, each by itself.

    momentum: of the teacher, at the start and at the end of training, linear between.
    targets, target_scale, target_aspect, context_scale: see `sample_blocks`.
    predictor_width, predictor_depth, predictor_heads: of the predictor's blocks, see `PatchPredictor`.
    """

    momentum: tuple[float, float] = (0.996, 1.0)
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    predictor_width: int = 384
    predictor_depth: int = 12
    predictor_heads: int = 12

    def __post_init__(self):
        check_momentum(self.momentum)
        if self.targets < 1:
            raise ValueError(f"targets={self.targets}: there must be at least one block to predict")
        for name in ("target_scale", "target_aspect", "context_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (high > 1 and name != "target_aspect"):
                raise ValueError(f"{name}={(low, high)}: give (low, high), 0 < low <= high, scales at most 1")

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> IJEPANetwork:
        vit = vision_transformer(encoder, "I-JEPA", pools=("mean",))
        predictor = JEPAPredictor(
            vit.features,
            vit.features,
            self.predictor_width,
            self.predictor_depth,
            self.predictor_heads,
            dtype=vit.dtype,
            remat=vit.remat,
            rngs=rngs,
        )
        return IJEPANetwork(vit, predictor)

    def loss(self, network: IJEPANetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        images, patch_size = batch["views"][0], network.student.patch_size
        grid = images.shape[1] // patch_size, images.shape[2] // patch_size
        momentum = linear(self.momentum, progress_of(batch))
        ema_update(network.encoder, network.student, momentum)
        block_key, path_key = jax.random.split(key)
        blocks = self._blocks(block_key, len(images), grid)

        whole = network.encoder.tokens(images)
        pooled = jax.lax.stop_gradient(network.encoder.pooled(whole))  # what evaluation reads
        tokens = jax.lax.stop_gradient(standardized(whole.patches))
        features = jax.vmap(lambda tokens, targets: tokens[targets])(tokens, blocks.targets)

        context = network.student.tokens(images, keep=blocks.context, valid=blocks.context_valid, key=path_key).patches
        predicted = self._predictions(network.predictor, context, blocks, grid)
        metrics = {
            "target_std": jnp.mean(jnp.std(tokens, axis=(0, 1))),
            "feature_std": jnp.mean(jnp.std(pooled, axis=0)),
            "teacher_momentum": momentum,
        }
        return feature_loss(predicted, features, blocks.targets_valid), metrics

    def _blocks(self, key: Key[Array, ""], examples: int, grid: tuple[int, int]) -> Blocks:
        return sample_blocks(
            key,
            examples,
            grid,
            targets=self.targets,
            target_scale=self.target_scale,
            target_aspect=self.target_aspect,
            context_scale=self.context_scale,
        )

    def _predictions(
        self, predictor: JEPAPredictor, context: Float[Array, "b m d"], blocks: Blocks, grid: tuple[int, int]
    ) -> Float[Array, "b t s d"]:
        """Each target block by itself, from the whole context: its tokens attend to no other block's."""
        b, t, s = blocks.targets.shape

        def repeated(x: Array) -> Array:
            return jnp.repeat(x, t, axis=0)

        predicted = predictor(
            repeated(context),
            repeated(blocks.context),
            repeated(blocks.context_valid),
            blocks.targets.reshape(b * t, s),
            blocks.targets_valid.reshape(b * t, s),
            grid,
        )
        return predicted.reshape(b, t, s, -1)
