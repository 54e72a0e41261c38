"""The decoder that trains a masked autoencoder's encoder and is then thrown away."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.normalization import at_least_float32
from dnc.models.transformer import Block, BlockSettings, apply_blocks, learned_tokens
from dnc.models.vit import Tokens, sincos2d
from dnc.types import Array, Float, Int


class MAEDecoder(nnx.Module):
    """Visible tokens to the pixels of all patches (He et al. 2022): a narrower Transformer with fixed positions.

    in_features: width of the encoder. out_features: numbers in a patch. width, depth, heads: of the decoder.
    remat: keep only the input of every block and compute its inside again for the gradient.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if depth < 1 or width % 4:
            raise ValueError(f"decoder of {width=}, {depth=}: give at least one block and a multiple of 4 as the width")
        settings = BlockSettings(width, heads, init="xavier_uniform", dtype=dtype)
        self.embed = settings.linear(in_features, width, rngs=rngs)
        self.mask_token = learned_tokens(1, width, rngs)
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(depth)])
        self.norm = settings.norm(rngs)
        self.predict = settings.linear(width, out_features, rngs=rngs)
        self.dtype, self.remat = dtype, remat

    def __call__(
        self, visible: Tokens, place: Int[Array, "b n"], grid: tuple[int, int]
    ) -> Float[Array, "b n out_features"]:
        """Predictions for every patch, at least in float32.

        place: of each patch among the visible ones, in their order, and after them, of a masked one.
        grid: rows and columns of patches.
        """
        patches = self.embed(visible.patches.astype(self.dtype))
        b, m, width = patches.shape
        token = self.mask_token[None].astype(patches.dtype)
        masked = jnp.broadcast_to(token, (b, place.shape[1] - m, width))
        x = jnp.take_along_axis(jnp.concatenate([patches, masked], axis=1), place[:, :, None], axis=1)
        x = x + jnp.asarray(sincos2d(*grid, width))[None].astype(x.dtype)
        if visible.cls is not None:  # it has no position
            x = jnp.concatenate([self.embed(visible.cls.astype(self.dtype))[:, None], x], axis=1)
        x = self.predict(self.norm(apply_blocks(self.blocks, x, remat=self.remat)))
        return x[:, -place.shape[1] :].astype(at_least_float32(self.dtype))
