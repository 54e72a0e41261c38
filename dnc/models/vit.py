"""Vision Transformers (Dosovitskiy et al. 2021) in the variants of MAE, DINO, DINOv2, I-JEPA, CLIP and SigLIP."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from dnc import errors
from dnc.models.encoder import Encoder
from dnc.models.precision import at_least_float32
from dnc.models.transformer import (
    AttentionPool,
    Block,
    BlockSettings,
    apply_blocks,
    learned_tokens,
    stochastic_depth,
)
from dnc.types import Array, Bool, Float, Int, Key

PRESETS: dict[str, dict[str, int]] = {  # DeiT's and DINO's names
    "vit_tiny": dict(width=192, depth=12, heads=3),
    "vit_small": dict(width=384, depth=12, heads=6),
    "vit_base": dict(width=768, depth=12, heads=12),
    "vit_large": dict(width=1024, depth=24, heads=16),
}

CHOICES = {"pool": ("cls", "map", "mean"), "position": ("learned", "sincos2d"), "final_norm": ("pooled", "tokens")}


def patchify(images: Float[Array, "b h w c"], patch_size: int) -> Float[Array, "b n p"]:
    """Non-overlapping square patches in row-major order, each flattened by row, column, channel: p = patch_size^2 c.

    Raises ValueError where patches do not tile the images.
    """
    b, h, w, c = images.shape
    if h % patch_size or w % patch_size:
        raise ValueError(
            f"images of {h} x {w} pixels do not divide into patches of patch_size={patch_size}: "
            "crop or resize them to a multiple of it"
        )
    x = images.reshape(b, h // patch_size, patch_size, w // patch_size, patch_size, c)
    return x.swapaxes(2, 3).reshape(b, -1, patch_size * patch_size * c)


def sincos2d(height: int, width: int, features: int) -> np.ndarray:
    """Fixed positions float32 [height * width, features] of MAE (He et al. 2022) and I-JEPA, as in their code.

    Four equal parts: sin(x w_i), cos(x w_i), sin(y w_i), cos(y w_i), with x the column, y the row of a patch, counted
    from 0, and w_i = 10000^(-i / (features/4)), i = 0 ... features/4 - 1.
    """
    frequencies = 10000.0 ** (-np.arange(features // 4) / (features // 4))
    y, x = np.divmod(np.arange(height * width), width)
    angles = np.multiply.outer(np.stack([x, y], axis=1), frequencies)  # [n, 2, features / 4]
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=2)
    return waves.reshape(height * width, features).astype(np.float32)


class Tokens(NamedTuple):
    """What a ViT makes of images, `at_least_float32`: objectives take what they need.

    cls: [b, d], None without a class token. registers: [b, r, d]. patches: [b, n, d], or [b, m, d] of those kept.
    """

    cls: Float[Array, "b d"] | None
    registers: Float[Array, "b r d"]
    patches: Float[Array, "b n d"]


def _parts(x: Float[Array, "b t d"], start: int, has_cls: bool) -> Tokens:
    """Tokens by kind; the first `start` are not patches."""
    return Tokens(x[:, 0] if has_cls else None, x[:, int(has_cls) : start], x[:, start:])


def _summaries(layer: str, tokens: Tokens) -> dict[str, Float[Array, "b _"]]:
    cls = {} if tokens.cls is None else {f"{layer}.cls": tokens.cls}
    return cls | {f"{layer}.mean": tokens.patches.mean(axis=1)}


class ViT(Encoder):
    """Images to features, pooled or as tokens. Images may have any size that patches tile; see `tokens`.

    image_size: side of the square images whose patches the learned positions are for.
    patch_size: side of a patch. width, depth (in blocks), heads: see `PRESETS`.
    pool: "cls" (the class token), "mean" (of the patches) or "map" (attention to the patches, SigLIP).
    class_token: whether there is one; a position that a published one has adds to the token. registers: how many tokens
      without position follow it (Darcet et al. 2024).
    position: "learned", interpolated bicubically for other sizes, or "sincos2d", fixed (MAE, I-JEPA).
    antialias: whether that interpolation is antialiased, as PyTorch's is (DINOv2's networks with registers).
    mask_token: whether there is a learned token to stand for masked patches (iBOT, DINOv2).
    patch_bias: whether the patch projection has a bias (CLIP has none).
    pre_norm: normalize the tokens before the first block too (CLIP).
    final_norm: "tokens", or "pooled" to normalize the pooled feature instead of them.
    projection: width to which a last linear map without bias takes the pooled feature (CLIP's image embedding).
    drop_path: rate of `stochastic_depth` in the last block.
    mlp_ratio, activation, qkv_bias, layer_scale, epsilon, init, attention, dtype: see `BlockSettings`; the features and
      tokens are `at_least_float32`.
    remat: keep only the input of every block and compute its inside again for the gradient: less memory, more work.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        *,
        channels: int = 3,
        mlp_ratio: float = 4.0,
        pool: str = "cls",
        class_token: bool = True,
        registers: int = 0,
        position: str = "learned",
        antialias: bool = False,
        mask_token: bool = False,
        activation: str = "gelu",
        qkv_bias: bool = True,
        patch_bias: bool = True,
        layer_scale: float | None = None,
        epsilon: float = 1e-6,
        pre_norm: bool = False,
        final_norm: str = "tokens",
        projection: int | None = None,
        drop_path: float = 0.0,
        init: str = "normal",
        attention: str | None = None,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        settings = BlockSettings(
            width,
            heads,
            mlp_ratio=mlp_ratio,
            activation=activation,
            qkv_bias=qkv_bias,
            layer_scale=layer_scale,
            epsilon=epsilon,
            init=init,
            attention=attention,
            dtype=dtype,
        )
        for name, value in (("pool", pool), ("position", position), ("final_norm", final_norm)):
            if value not in CHOICES[name]:
                raise errors.unknown(name, value, CHOICES[name])
        if pool == "cls" and not class_token:
            raise ValueError("pool='cls' needs class_token=True: choose pool='mean' or 'map' without a class token")
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size}: choose a divisor")
        if depth < 1 or registers < 0 or not 0 <= drop_path < 1:
            raise ValueError(f"{depth=}, {registers=}, {drop_path=}: give at least 1, at least 0, and a rate in [0, 1)")
        if position == "sincos2d" and width % 4:
            raise ValueError(f"width={width}: position='sincos2d' needs a multiple of 4")
        self.embed = settings.linear(channels * patch_size**2, width, use_bias=patch_bias, rngs=rngs)
        self.cls = learned_tokens(1, width, rngs) if class_token else None
        self.registers = learned_tokens(registers, width, rngs) if registers else None
        self.mask_token = learned_tokens(1, width, rngs) if mask_token else None
        patches = (image_size // patch_size) ** 2
        self.positions = learned_tokens(patches, width, rngs) if position == "learned" else None
        self.pre_norm = settings.norm(rngs) if pre_norm else None
        self.blocks = nnx.List([Block(settings, rngs=rngs) for _ in range(depth)])
        self.norm = settings.norm(rngs)
        self.pooler = AttentionPool(settings, rngs=rngs) if pool == "map" else None
        self.projection = settings.linear(width, projection, use_bias=False, rngs=rngs) if projection else None
        self.pool, self.final_norm, self.antialias = pool, final_norm, antialias
        self.patch_size, self.drop_path = patch_size, drop_path
        self.width, self.features = width, projection or width
        self.dtype, self.remat = dtype, remat

    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b d"]:
        """Pooled features, at least in float32; training with `drop_path` needs a key, evaluation draws nothing."""
        if train and self.drop_path and key is None:
            raise ValueError(f"drop_path={self.drop_path}: training needs a key, pass key=... or set drop_path=0")
        return self.pooled(self.tokens(images, key=key if train else None))

    def tokens(
        self,
        images: Float[Array, "b h w c"],
        *,
        keep: Int[Array, "b m"] | None = None,
        valid: Bool[Array, "b m"] | None = None,
        mask: Bool[Array, "b n"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Tokens:
        """All tokens after the last block and the final normalization. Patches are numbered row by row from 0.

        keep: the only patches of each image to encode, in this order (MAE's visible ones, I-JEPA's context); numbers
          beyond the last patch give nan. valid: which of these are attended to, where images keep different numbers of
          patches; the others are padding. mask: patches that the mask token replaces. `keep` and `mask` happen
          at the input: the position is added to masked patches too, and before those to keep are chosen. key: for
          `drop_path`; without one, no path is dropped.
        """
        x, start = self._input(images, keep=keep, mask=mask)
        paths = None
        if key is not None and self.drop_path:
            paths = stochastic_depth(key, self.drop_path, len(self.blocks), len(images))
        if valid is not None:
            valid = jnp.pad(valid, ((0, 0), (start, 0)), constant_values=True)
        x = apply_blocks(self.blocks, x, paths=paths, valid=valid, remat=self.remat)
        return self._output(x, start)

    def layers(self, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        """Class token and mean of the patches after every block, before any normalization, and of the output.

        The layer "output" is what `tokens` gives, after the final normalization. Attention to the patches and the
        projection are its "pooled" and "projected", where the network has them.
        """
        x, start = self._input(images)
        found = {}
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            found |= _summaries(f"block{number:02}", _parts(at_least_float32(x), start, self.cls is not None))
        tokens = self._output(x, start)
        own = "projected" if self.projection is not None else "pooled" if self.pooler is not None else self.pool
        found |= _summaries("output", tokens)
        return found | {f"output.{own}": self.pooled(tokens)}

    def _input(
        self,
        images: Float[Array, "b h w c"],
        *,
        keep: Int[Array, "b m"] | None = None,
        mask: Bool[Array, "b n"] | None = None,
    ) -> tuple[Float[Array, "b t d"], int]:
        """The first block's tokens, and how many come before the patches; see `tokens`."""
        b, height, width, _ = images.shape
        x = self.embed(patchify(images.astype(self.dtype), self.patch_size))
        if mask is not None:
            x = self._masked(x, mask)
        x = x + self._positions(height // self.patch_size, width // self.patch_size)[None].astype(x.dtype)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[:, :, None], axis=1)
        first = [token[...] for token in (self.cls, self.registers) if token is not None]
        x = jnp.concatenate([*(jnp.broadcast_to(t[None].astype(x.dtype), (b, *t.shape)) for t in first), x], axis=1)
        if self.pre_norm is not None:
            x = self.pre_norm(x).astype(x.dtype)
        return x, sum(len(t) for t in first)

    def _output(self, x: Float[Array, "b t d"], start: int) -> Tokens:
        """The tokens after the last block, with the final normalization."""
        x = self.norm(x) if self.final_norm == "tokens" else at_least_float32(x)
        return _parts(x, start, self.cls is not None)

    def pooled(self, tokens: Tokens) -> Float[Array, "b d"]:
        """The feature that `pool` names, at least in float32."""
        if self.pooler is not None:
            x = self.pooler(tokens.patches)
        elif self.pool == "cls" and tokens.cls is not None:
            x = tokens.cls
        else:
            x = tokens.patches.mean(axis=1)
        x = self.norm(x) if self.final_norm == "pooled" else x
        return at_least_float32(x if self.projection is None else self.projection(x))

    def _masked(self, x: Float[Array, "b n d"], mask: Bool[Array, "..."]) -> Float[Array, "b n d"]:
        if self.mask_token is None:
            raise ValueError("mask= replaces patches with the mask token: create the ViT with mask_token=True")
        if mask.shape != x.shape[:2]:
            raise ValueError(
                f"mask of shape {mask.shape}: there are {x.shape[1]} patches in each of {x.shape[0]} images"
            )
        return jnp.where(mask[:, :, None], self.mask_token[None].astype(x.dtype), x)

    def _positions(self, height: int, width: int) -> Float[Array, "n d"]:
        """Of a grid of patches; learned ones resized as PyTorch does, whose bicubic filter differs by antialiasing."""
        if self.positions is None:
            return jnp.asarray(sincos2d(height, width, self.width))
        side = math.isqrt(len(self.positions))
        if (height, width) == (side, side):
            return self.positions[...]
        square = self.positions[...].reshape(side, side, self.width)
        method = "cubic" if self.antialias else "cubic-pytorch"
        resized = jax.image.resize(square, (height, width, self.width), method, antialias=self.antialias)
        return resized.reshape(height * width, self.width)
