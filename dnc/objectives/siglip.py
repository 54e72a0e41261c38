"""SigLIP: whether an image and a caption belong together, decided for every pair by itself."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from dnc.objectives.image_text import ImageText, ImageTextNetwork, cosines
from dnc.types import Array, Batch, Float, Key, Metrics


def siglip_loss(
    images: Float[Array, "b p"],
    texts: Float[Array, "b p"],
    log_scale: Float[Array, ""],
    bias: Float[Array, ""],
) -> Float[Array, ""]:
    """Sigmoid loss over all pairs of the global batch (Zhai et al. 2023, eq. 1 and algorithm 1).

    L = -1/b sum_ij log sigmoid(y_ij (exp(t') cos(x_i, y_j) + bias)),  y_ii = 1,  y_ij = -1 for i != j

    A sum over b^2 pairs divided by b, as in the paper.
    """
    similarity, pairs = cosines(images, texts)
    logits = jnp.exp(log_scale) * similarity + bias
    return jnp.sum(jax.nn.softplus(jnp.where(pairs, -logits, logits))) / images.shape[0]


@dataclasses.dataclass(frozen=True)
class SigLIP(ImageText):
    """Match images with captions pair by pair (Zhai et al. 2023); see `ImageText`.

    The text Transformer attends in both directions, and a caption's feature is that of the last position.

    The bias of the logits is -log(b - 1) + a learned offset that starts at 0: at the start, with unrelated embeddings,
    the odds of a match are those of a random pair of a batch of b, whatever b is, and the loss does not begin with
    undoing b - 1 wrong guesses per image. The paper's -10 is this at b = 22,027.
    """

    causal: ClassVar[bool] = False
    biased: ClassVar[bool] = True
    scale: float = 10.0

    def loss(self, network: ImageTextNetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        del key  # deterministic
        images, texts, metrics = self.embeddings(network, batch)
        if network.bias is None:
            raise ValueError("the network has no bias: make it with SigLIP.network")
        log_scale, bias = network.log_scale[...], network.bias[...] - math.log(images.shape[0] - 1)
        metrics["logit_scale"], metrics["logit_bias"] = jax.lax.stop_gradient((jnp.exp(log_scale), bias))
        return siglip_loss(images, texts, log_scale, bias), metrics
