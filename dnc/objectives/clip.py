"""CLIP: every image picks its caption out of the global batch's, every caption its image."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from dnc.objectives.image_text import ImageText, ImageTextNetwork, cosines
from dnc.types import Array, Batch, Float, Key, Metrics

MAX_SCALE = 100.0


@jax.custom_vjp
def clipped_scale(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """min(exp(log_scale), 100), with a gradient that holds log_scale near log 100 but lets it come back.

    Up to the limit the gradient is that of exp. Beyond it, where an optimizer's momentum may carry the parameter, a
    gradient whose descent would go further is 0, and one that leads back is that of exp at log 100. So it acts as
    published code does, which clips the parameter after every step; under a plain minimum, whose gradient is 0 beyond
    the limit, the scale would stay at 100 for good.
    """
    return jnp.exp(jnp.minimum(log_scale, math.log(MAX_SCALE)))


def _forward(log_scale: Float[Array, ""]) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
    scale = clipped_scale(log_scale)
    return scale, (log_scale, scale)


def _backward(saved: tuple[Float[Array, ""], Float[Array, ""]], gradient: Float[Array, ""]) -> tuple[Float[Array, ""]]:
    log_scale, scale = saved
    return (jnp.where((log_scale > math.log(MAX_SCALE)) & (gradient < 0), 0.0, gradient * scale),)


clipped_scale.defvjp(_forward, _backward)


def clip_loss(images: Float[Array, "b p"], texts: Float[Array, "b p"], log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Symmetric cross-entropy over the global batch (Radford et al. 2021, figure 3).

    L = 1/(2b) sum_i [-l_ii + log sum_j exp l_ij] + 1/(2b) sum_j [-l_jj + log sum_i exp l_ij],  l_ij = s cos(x_i, y_j)

    with s = `clipped_scale` of the learned log_scale, at most 100.
    """
    similarity, pairs = cosines(images, texts)
    logits = clipped_scale(log_scale) * similarity
    own = jnp.sum(logits, axis=1, where=pairs)
    candidates = (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) / 2
    return jnp.mean(candidates - own)


@dataclasses.dataclass(frozen=True)
class CLIP(ImageText):
    """Match images with captions by cross-entropy over the batch (Radford et al. 2021); see `ImageText`.

    The text Transformer is causal, a caption's feature that of its end token. Equal captions in a batch count as wrong
    answers for each other, as published.
    """

    causal: ClassVar[bool] = True
    biased: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        if self.scale > MAX_SCALE:
            raise ValueError(f"scale={self.scale}: give at most {MAX_SCALE:g}, where it is clipped")

    def loss(self, network: ImageTextNetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        del key  # deterministic
        images, texts, metrics = self.embeddings(network, batch)
        log_scale = network.log_scale[...]
        metrics["logit_scale"] = jax.lax.stop_gradient(clipped_scale(log_scale))
        return clip_loss(images, texts, log_scale), metrics
