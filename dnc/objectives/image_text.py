"""What CLIP and SigLIP share: images and their captions in one space, at a learned scale."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.heads import normalize
from dnc.models.precision import at_least_float32
from dnc.models.text import TextTransformer
from dnc.objectives.base import Objective, check_comparable, same_image
from dnc.types import Array, Batch, Bool, Float, Int, Metrics


def cosines(images: Float[Array, "b p"], texts: Float[Array, "b p"]) -> tuple[Float[Array, "b b"], Bool[Array, "b b"]]:
    """Cosine of every image of the global batch (rows) with every text (columns), and where the two belong together."""
    check_comparable(images)
    first, second = normalize(at_least_float32(images)), normalize(at_least_float32(texts))
    return jnp.dot(first, second.T, precision="highest"), same_image(images.shape[0])


def matching_metrics(images: Float[Array, "b p"], texts: Float[Array, "b p"]) -> Metrics:
    """How well images find their captions.

    matching_accuracy: share of images that are more similar to their own caption than to each of the b - 1 others; an
    equal caption among those makes it a miss. positive_similarity, negative_similarity: mean cosines.
    """
    similarity, pairs = cosines(images, texts)
    positive = jnp.sum(similarity, axis=1, where=pairs)
    nearest_other = jnp.max(jnp.where(pairs, -jnp.inf, similarity), axis=1)
    return {
        "matching_accuracy": jnp.mean(positive > nearest_other, dtype=jnp.float32),
        "positive_similarity": jnp.mean(positive),
        "negative_similarity": jnp.mean(similarity, where=~pairs),
    }


class ImageTextNetwork(nnx.Module):
    """An image encoder and a text Transformer, each with a linear projection without bias; scale and bias of logits.

    log_scale: logarithm of what multiplies cosines, from log `scale`. bias: a learned offset, from 0, or None.
    """

    def __init__(
        self, encoder: Encoder, text: TextTransformer, features: int, *, scale: float, bias: bool, rngs: nnx.Rngs
    ):
        self.encoder, self.text = encoder, text
        self.image_projection = nnx.Linear(encoder.features, features, use_bias=False, dtype=encoder.dtype, rngs=rngs)
        self.text_projection = nnx.Linear(text.features, features, use_bias=False, dtype=text.dtype, rngs=rngs)
        self.log_scale = nnx.Param(jnp.array(math.log(scale), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((), jnp.float32)) if bias else None

    def __call__(
        self, images: Float[Array, "b h w c"], tokens: Int[Array, "b t"], *, train: bool
    ) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
        """The projections of both, not normalized."""
        image = self.image_projection(self.encoder(images, train=train))
        return at_least_float32(image), at_least_float32(self.text_projection(self.text(tokens)))


@dataclasses.dataclass(frozen=True)
class ImageText(Objective):
    """An objective that matches the first view of every image with its caption.

    features: dimension of the common space. text_width, text_depth, text_heads: the text Transformer's.
    vocabulary, context_length: of the captions, see dnc.data.tokenizer. scale: of the logits, at the start.
    remat: keep only the input of every block of text, see `ViT`.
    """

    causal: ClassVar[bool]
    biased: ClassVar[bool]
    features: int = 512
    text_width: int = 512
    text_depth: int = 12
    text_heads: int = 8
    vocabulary: int = 259
    context_length: int = 64
    scale: float = 1 / 0.07
    remat: bool = False

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"scale={self.scale} must be positive: it multiplies cosines")

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> ImageTextNetwork:
        text = TextTransformer(
            self.vocabulary,
            self.context_length,
            self.text_width,
            self.text_depth,
            self.text_heads,
            causal=self.causal,
            dtype=encoder.dtype,
            remat=self.remat,
            rngs=rngs,
        )
        return ImageTextNetwork(encoder, text, self.features, scale=self.scale, bias=self.biased, rngs=rngs)

    def captions(self, batch: Batch) -> Any:
        """The batch's captions as tokens [b, t], or their abstract shape; raises ValueError if none fit."""
        tokens = batch.get("tokens")
        if tokens is None:
            raise ValueError(
                "the batch has no captions (tokens): set data.captions, to True for the multitask images, to the "
                "caption column of a table of image files"
            )
        if tokens.shape[1] != self.context_length:
            raise ValueError(
                f"captions have {tokens.shape[1]} tokens and the text Transformer {self.context_length} positions: set "
                "data.context_length and objective.context_length to the same"
            )
        return tokens

    def check(self, batch: Batch) -> None:
        self.captions(batch)

    def embeddings(
        self, network: ImageTextNetwork, batch: Batch
    ) -> tuple[Float[Array, "b p"], Float[Array, "b p"], Metrics]:
        """Projections of the first views and of the captions, and metrics of them. Labels are not used."""
        images, texts = network(batch["views"][0], self.captions(batch), train=True)
        return images, texts, jax.lax.stop_gradient(matching_metrics(images, texts))
