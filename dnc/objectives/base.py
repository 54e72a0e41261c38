"""What an objective is: hyperparameters, a network around an encoder, and a pure loss."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.heads import Projector
from dnc.types import Array, Batch, Float, Key


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Losses are computed in float32 however coarse the network's type; float64 stays."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


@runtime_checkable
class Objective(Protocol):
    """A training method: a frozen dataclass of its hyperparameters.

    separable: whether the loss is a mean over examples, each seeing no other. Then gradients may be accumulated.
    """

    @property
    def separable(self) -> bool: ...

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> nnx.Module:
        """The module to train: the encoder as `.encoder`, and the heads that the method needs."""
        ...

    def loss(
        self, network: nnx.Module, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss over the global batch, and metrics to log. Updates the network's running statistics in place."""
        ...


class Network(nnx.Module):
    """An encoder and one head on its features."""

    def __init__(self, encoder: Encoder, head: Projector):
        self.encoder = encoder
        self.head = head

    def __call__(self, views: Float[Array, "v b h w c"], *, train: bool) -> Float[Array, "v b p"]:
        """The head's output for every view, all views in one pass: normalisation sees them as one batch.

        Views of one example are put side by side before the axes merge, so a batch sharded over devices stays where it
        is. Merged with the views outermost, every device would gather all images and do all the work.
        """
        v, b, *image = views.shape
        features = self.encoder(views.swapaxes(0, 1).reshape(b * v, *image), train=train)
        return self.head(features, train=train).reshape(b, v, -1).swapaxes(0, 1)
