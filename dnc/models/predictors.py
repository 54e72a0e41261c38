"""Narrow Transformers that predict patches from the tokens of others; training alone needs them."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.precision import at_least_float32
from dnc.models.transformer import Block, BlockSettings, apply_blocks, learned_tokens
from dnc.models.vit import Tokens, sincos2d
from dnc.types import Array, Bool, Float, Int


class PatchPredictor(nnx.Module):
    """What both have: a map to their own width, a token for the patches to predict, blocks, a map to the output.

    in_features, out_features: width of the encoder's tokens, of the predictions. width, depth, heads: of the blocks.
    remat: keep only the input of every block and compute its inside again for the gradient.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        width: int,
        depth: int,
        heads: int,
        *,
        init: str = "normal",
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if depth < 1 or width % 4:
            raise ValueError(f"{width=}, {depth=} of the predictor: give a multiple of 4 and at least one block")
        settings = BlockSettings(width, heads, init=init, dtype=dtype)
        self.embed = settings.linear(in_features, width, rngs=rngs)
        self.mask_token = learned_tokens(1, width, rngs)
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(depth)])
        self.norm = settings.norm(rngs)
        self.predict = settings.linear(width, out_features, rngs=rngs)
        self.dtype, self.remat = dtype, remat


class MAEDecoder(PatchPredictor):
    """Visible tokens to the pixels of all patches (He et al. 2022), with fixed positions."""

    def __call__(
        self, visible: Tokens, restore: Int[Array, "b n"], grid: tuple[int, int]
    ) -> Float[Array, "b n out_features"]:
        """Predictions for every patch, at least in float32.

        restore: index of each patch among the visible ones, in their order, followed by the masked ones.
        grid: rows and columns of patches.
        """
        patches = self.embed(visible.patches.astype(self.dtype))
        b, m, width = patches.shape
        token = self.mask_token[None].astype(patches.dtype)
        masked = jnp.broadcast_to(token, (b, restore.shape[1] - m, width))
        x = jnp.take_along_axis(jnp.concatenate([patches, masked], axis=1), restore[:, :, None], axis=1)
        x = x + jnp.asarray(sincos2d(*grid, width))[None].astype(x.dtype)
        if visible.cls is not None:  # it has no position
            x = jnp.concatenate([self.embed(visible.cls.astype(self.dtype))[:, None], x], axis=1)
        x = self.predict(self.norm(apply_blocks(self.blocks, x, remat=self.remat)))
        return at_least_float32(x[:, -restore.shape[1] :])


class JEPAPredictor(PatchPredictor):
    """The context's tokens to the target encoder's tokens elsewhere (Assran et al. 2023), with fixed positions."""

    def __call__(
        self,
        context: Float[Array, "b m d"],
        context_patches: Int[Array, "b m"],
        context_valid: Bool[Array, "b m"],
        targets: Int[Array, "b t"],
        targets_valid: Bool[Array, "b t"],
        grid: tuple[int, int],
    ) -> Float[Array, "b t d"]:
        """Predicted tokens at the target patches, at least in float32.

        context_patches, targets: numbers of the patches, row by row on a grid of (rows, columns). context_valid,
        targets_valid: which of them count; the others are padding, and no token attends to them.
        """
        x = self.embed(context.astype(self.dtype))
        positions = jnp.asarray(sincos2d(*grid, x.shape[-1])).astype(x.dtype)
        queries = self.mask_token[None].astype(x.dtype) + positions[targets]
        x = jnp.concatenate([x + positions[context_patches], queries], axis=1)
        valid = jnp.concatenate([context_valid, targets_valid], axis=1)
        x = apply_blocks(self.blocks, x, valid=valid, remat=self.remat)
        return at_least_float32(self.predict(self.norm(x[:, context.shape[1] :])))
