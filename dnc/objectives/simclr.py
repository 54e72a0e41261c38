"""SimCLR: contrast the two views of an image with every other view of the global batch."""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.models.heads import normalize
from dnc.models.precision import at_least_float32
from dnc.objectives.base import check_comparable, same_image
from dnc.objectives.two_views import TwoViews
from dnc.types import Array, Float, Metrics


def similarities(
    first: Float[Array, "b p"], second: Float[Array, "b p"]
) -> tuple[Float[Array, "2*b"], Float[Array, "2*b 2*b"]]:
    """Cosine of each of the 2b anchors with its positive, and with all views: -inf for the two of its own example.

    Anchors are ordered first[0], second[0], first[1], ...: the views of one example stay on that example's device.
    """
    check_comparable(first)
    z = normalize(at_least_float32(jnp.stack([first, second], axis=1)))
    positive = jnp.sum(z[:, 0] * z[:, 1], axis=-1)
    anchors = z.reshape(-1, z.shape[-1])
    # "highest": the product is bfloat16 by default on accelerators, and temperature 0.1 multiplies its error by ten
    pairwise = jnp.dot(anchors, anchors.T, precision="highest")
    return jnp.repeat(positive, 2), jnp.where(same_image(first.shape[0], views=2), -jnp.inf, pairwise)


def nt_xent(
    first: Float[Array, "b p"], second: Float[Array, "b p"], temperature: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Normalized temperature-scaled cross-entropy (Chen et al. 2020, eq. 1).

    L = 1/(2b) sum over the 2b anchors of  -s+/T + log sum over the other 2b - 1 views of exp(s/T),  s = cosine

    Every anchor's negatives are the 2b - 2 views of all other examples of the global batch; the positive is in the sum.
    An anchor's term is softplus of its term in `decoupled_nt_xent`: accurate when it is close to 0.
    """
    positive, negatives = similarities(first, second)
    return jnp.mean(jax.nn.softplus(jax.nn.logsumexp(negatives / temperature, axis=1) - positive / temperature))


def decoupled_nt_xent(
    first: Float[Array, "b p"], second: Float[Array, "b p"], temperature: float | Float[Array, ""]
) -> Float[Array, ""]:
    """NT-Xent without the positive in the denominator (decoupled contrastive learning, Yeh et al. 2022, eq. 6).

    L = 1/(2b) sum over the 2b anchors of  -s+/T + log sum over the 2b - 2 negatives of exp(s/T)

    Can be negative. Some published code named DCL keeps the positive in the sum and is plain NT-Xent.
    """
    positive, negatives = similarities(first, second)
    return jnp.mean(jax.nn.logsumexp(negatives / temperature, axis=1) - positive / temperature)


def contrastive_metrics(first: Float[Array, "b p"], second: Float[Array, "b p"]) -> Metrics:
    """How well positives are found, and whether the embedding has collapsed.

    contrastive_accuracy: share of anchors whose positive is more similar than each of their 2b - 2 negatives.
    positive_similarity, negative_similarity: mean cosines.
    embedding_std: mean over dimensions of the normalized embeddings' standard deviation, times sqrt(p): 1 when spread
    evenly over the sphere, 0 when all embeddings are equal.
    """
    positive, negatives = similarities(first, second)
    embeddings = normalize(at_least_float32(jnp.stack([first, second], axis=1)))
    return {
        "contrastive_accuracy": jnp.mean(positive > negatives.max(axis=1), dtype=jnp.float32),
        "positive_similarity": jnp.mean(positive),
        "negative_similarity": jnp.mean(negatives, where=jnp.isfinite(negatives)),
        "embedding_std": jnp.mean(jnp.std(embeddings, axis=(0, 1))) * first.shape[1] ** 0.5,
    }


@dataclasses.dataclass(frozen=True)
class SimCLR(TwoViews):
    """Contrast each view with all others of the global batch (Chen et al. 2020).

    temperature: divides cosine similarities.
    decoupled: leave the positive out of the denominator (true DCL).
    widths, norm, last_bias: the projector, see `Projector`.
    """

    temperature: float = 0.2
    decoupled: bool = False
    widths: tuple[int, ...] = (2048, 256)
    norm: bool = False
    last_bias: bool = True

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature} must be positive")

    def compare(self, first: Float[Array, "b p"], second: Float[Array, "b p"]) -> tuple[Float[Array, ""], Metrics]:
        loss = decoupled_nt_xent if self.decoupled else nt_xent
        return loss(first, second, self.temperature), contrastive_metrics(first, second)
