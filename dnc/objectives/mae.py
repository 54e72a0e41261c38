"""Masked autoencoder: reconstruct the hidden patches of an image from the few visible ones."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.precision import at_least_float32
from dnc.models.predictors import MAEDecoder
from dnc.models.vit import ViT, patchify
from dnc.objectives.base import Objective, vision_transformer
from dnc.types import Array, Batch, Bool, Float, Int, Key, Metrics


def patch_targets(images: Float[Array, "b h w c"], patch_size: int, *, normalize: bool = True) -> Float[Array, "b n p"]:
    """The pixels of every patch; normalized, (x - mean) / sqrt(var + 1e-6) over the patch's own p numbers.

    The variance divides by p - 1, as in the authors' code.
    """
    x = patchify(at_least_float32(images), patch_size)
    if not normalize:
        return x
    return (x - x.mean(axis=-1, keepdims=True)) / jnp.sqrt(x.var(axis=-1, keepdims=True, ddof=1) + 1e-6)


def reconstruction_loss(
    predicted: Float[Array, "b n p"], targets: Float[Array, "b n p"], masked: Bool[Array, "b n"]
) -> Float[Array, ""]:
    """Mean over masked patches, and over their p numbers, of the squared error (He et al. 2022, sec. 3)."""
    errors = jnp.mean((at_least_float32(predicted) - targets) ** 2, axis=-1)
    return jnp.mean(errors, where=masked)


def random_order(key: Key[Array, ""], examples: int, patches: int) -> Int[Array, "examples patches"]:
    """A permutation of the patches for every example: the order of uniform noise."""
    return jnp.argsort(jax.random.uniform(key, (examples, patches)), axis=1)


class MAENetwork(nnx.Module):
    """The encoder, which evaluation reads with all patches visible, and the decoder."""

    def __init__(self, encoder: ViT, decoder: MAEDecoder):
        self.encoder = encoder
        self.decoder = decoder


@dataclasses.dataclass(frozen=True)
class MAE(Objective):
    """Encode a random quarter of the patches and predict the pixels of the others (He et al. 2022).

    Takes the first view of every example. The encoder is a ViT with pool="cls" or "mean"; the paper's has
    position="sincos2d" and init="xavier_uniform".

    mask_ratio: share of the patches that are hidden; of n, int(n (1 - mask_ratio)) stay visible.
    normalize_target: predict pixels normalized within their patch, see `patch_targets`.
    decoder_width, decoder_depth, decoder_heads: of the decoder's blocks, see `PatchPredictor`.
    """

    separable: ClassVar[bool] = True
    mask_ratio: float = 0.75
    normalize_target: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def __post_init__(self):
        if not 0 < self.mask_ratio < 1:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} must be in (0, 1): some patches are visible, some predicted"
            )

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> MAENetwork:
        vit = vision_transformer(encoder, "MAE", pools=("cls", "mean"))
        decoder = MAEDecoder(
            vit.features,
            vit.embed.in_features,
            self.decoder_width,
            self.decoder_depth,
            self.decoder_heads,
            init="xavier_uniform",
            dtype=vit.dtype,
            remat=vit.remat,
            rngs=rngs,
        )
        return MAENetwork(vit, decoder)

    def loss(self, network: MAENetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        images = batch["views"][0]
        mask_key, path_key = jax.random.split(key)
        targets = patch_targets(images, network.encoder.patch_size, normalize=self.normalize_target)
        order = random_order(mask_key, *targets.shape[:2])
        visible = self._visible(targets.shape[1])
        tokens = network.encoder.tokens(images, keep=order[:, :visible], key=path_key)
        restore = jnp.argsort(order, axis=1)
        grid = images.shape[1] // network.encoder.patch_size, images.shape[2] // network.encoder.patch_size
        predicted = network.decoder(tokens, restore, grid)
        metrics = {"prediction_std": jnp.mean(jnp.std(predicted, axis=-1))}
        return reconstruction_loss(predicted, targets, restore >= visible), jax.lax.stop_gradient(metrics)

    def _visible(self, patches: int) -> int:
        visible = int(patches * (1 - self.mask_ratio))
        if visible < 1:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} leaves none of {patches} patches visible: lower it or set a smaller "
                "config.model.patch_size"
            )
        return visible
