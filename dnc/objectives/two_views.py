"""What objectives on the embeddings of two views share: an encoder, a projector, and one pass over both views."""

import dataclasses

import jax
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.objectives.base import Network, Objective
from dnc.types import Array, Batch, Float, Key, Metrics


@dataclasses.dataclass(frozen=True)
class TwoViews(Objective):
    """An objective that compares the embeddings of the two views of every image.

    widths, norm, last_bias: the projector, see `Projector`.
    """

    _: dataclasses.KW_ONLY
    widths: tuple[int, ...] = (2048, 2048, 2048)
    norm: bool = True
    last_bias: bool = False

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> Network:
        return Network(encoder, self.widths, norm=self.norm, last_bias=self.last_bias, rngs=rngs)

    def loss(self, network: Network, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        del key  # deterministic
        loss, metrics = self.compare(*network(batch["views"], train=True))
        return loss, jax.lax.stop_gradient(metrics)

    def compare(self, first: Float[Array, "b p"], second: Float[Array, "b p"]) -> tuple[Float[Array, ""], Metrics]:
        """The loss of the two views' embeddings over the global batch, and metrics to log."""
        raise NotImplementedError
