"""The predictor of I-JEPA: from the context's tokens to the target encoder's tokens somewhere else."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.normalization import at_least_float32
from dnc.models.transformer import Block, BlockSettings, apply_blocks, learned_tokens
from dnc.models.vit import sincos2d
from dnc.types import Array, Bool, Float, Int


class Predictor(nnx.Module):
    """A narrow Transformer with fixed positions (Assran et al. 2023).

    features: width of the encoder, in and out. width, depth, heads: of the predictor.
    remat: keep only the input of every block and compute its inside again for the gradient.
    """

    def __init__(
        self,
        features: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if depth < 1 or width % 4:
            raise ValueError(f"predictor of {width=}, {depth=}: give at least one block and a multiple of 4 as width")
        settings = BlockSettings(width, heads, dtype=dtype)
        self.embed = settings.linear(features, width, rngs=rngs)
        self.mask_token = learned_tokens(1, width, rngs)
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(depth)])
        self.norm = settings.norm(rngs)
        self.predict = settings.linear(width, features, rngs=rngs)
        self.dtype, self.remat = dtype, remat

    def __call__(
        self,
        context: Float[Array, "b m d"],
        places: Int[Array, "b m"],
        seen: Bool[Array, "b m"],
        targets: Int[Array, "b t"],
        wanted: Bool[Array, "b t"],
        grid: tuple[int, int],
    ) -> Float[Array, "b t d"]:
        """Predicted tokens at the target patches, at least in float32.

        places, targets: numbers of the patches, row by row on a grid of (rows, columns). seen, wanted: which of them
        count; the others fill the arrays and are attended to by none.
        """
        x = self.embed(context.astype(self.dtype))
        positions = jnp.asarray(sincos2d(*grid, x.shape[-1])).astype(x.dtype)
        asked = self.mask_token[None].astype(x.dtype) + positions[targets]
        x = jnp.concatenate([x + positions[places], asked], axis=1)
        x = apply_blocks(self.blocks, x, seen=jnp.concatenate([seen, wanted], axis=1), remat=self.remat)
        return self.predict(self.norm(x[:, places.shape[1] :])).astype(at_least_float32(self.dtype))
