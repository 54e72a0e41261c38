"""What an objective is: hyperparameters, a network around an encoder, and a pure loss."""

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.heads import Projector
from dnc.models.vit import ViT
from dnc.types import Array, Batch, Bool, Float, Key, Metrics


def vision_transformer(encoder: Encoder, objective: str, pools: Collection[str] = ("cls", "map", "mean")) -> ViT:
    """The encoder of an objective that needs its patches; raises ValueError if it has none.

    pools: those whose features the objective trains. With any other, evaluation would read a token or an attention
    that nothing has trained; so it is refused too.
    """
    if not isinstance(encoder, ViT):
        raise ValueError(
            f"{objective} works on patches and {type(encoder).__name__} has none: set config.model.name='vit'"
        )
    if encoder.pool not in pools:
        raise ValueError(
            f"{objective} does not train the feature of pool={encoder.pool!r}: set config.model.pool to one of {pools}"
        )
    return encoder


def progress_of(batch: Batch) -> Float[Array, ""]:
    """The share of training that lies behind this step; raises ValueError if batch has no 'progress'."""
    if "progress" not in batch:
        raise ValueError("batch['progress'] is missing: this objective has schedules, give the share of training done")
    return batch["progress"]


def side_by_side(views: Float[Array, "v b *shape"]) -> Float[Array, "b*v *shape"]:
    """The views of one example become neighbors: a batch sharded over devices stays where it is.

    Merged with the views outermost, every device would gather all images and do all the work.
    """
    v, b, *shape = views.shape
    return views.swapaxes(0, 1).reshape(b * v, *shape)


def by_view(outputs: Float[Array, "n *shape"], v: int) -> Float[Array, "v b *shape"]:
    """The inverse of `side_by_side`."""
    return outputs.reshape(-1, v, *outputs.shape[1:]).swapaxes(0, 1)


def same_image(b: int, views: int = 1) -> Bool[Array, "n n"]:
    """Which rows and columns of a matrix of all pairs belong to one image, of b whose views lie side by side.

    Images are numbered by a constant, which every device holds: numbers made on the devices would be split over them
    and gathered again. The matrix itself is not one: of a batch of 32,768 it would be 1 GB in the program.
    """
    image = jnp.asarray(np.arange(b * views, dtype=np.int32) // views)
    return image[:, None] == image[None, :]


def check_comparable(embeddings: Float[Array, "b p"]) -> None:
    """Raises ValueError for a batch of one example, which has no negatives, no variance and no neighbor."""
    if len(embeddings) < 2:
        raise ValueError(f"this loss compares examples: give at least 2 examples in the batch, not {len(embeddings)}")


@runtime_checkable
class Objective(Protocol):
    """A training method: a frozen dataclass of its hyperparameters that subclasses this.

    separable: whether the loss is a mean over examples, each independent of the others, and no teacher follows once per
    step. Then gradients may be accumulated.
    """

    separable: ClassVar[bool] = False

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> nnx.Module:
        """The module to train: the encoder as `.encoder`, and the heads that the method needs."""
        ...

    def loss(self, network: Any, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        """The loss over the global batch, and metrics to log. Updates the network's running statistics in place."""
        ...

    def check(self, batch: Batch) -> None:
        """Raises ValueError where batches of these shapes (abstract arrays) cannot be learned from.

        Called once, before any work.
        """


class Network(nnx.Module):
    """An encoder and one head on its features; widths, norm, last_bias: the head, see `Projector`."""

    def __init__(
        self,
        encoder: Encoder,
        widths: Sequence[int],
        *,
        norm: bool = False,
        last_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.encoder = encoder
        self.head = Projector(encoder.features, widths, norm=norm, last_bias=last_bias, dtype=encoder.dtype, rngs=rngs)

    def __call__(self, views: Float[Array, "v b h w c"], *, train: bool) -> Float[Array, "v b p"]:
        """The head's output for every view, all views in one pass: normalization sees them as one batch."""
        features = self.encoder(side_by_side(views), train=train)
        return by_view(self.head(features, train=train), views.shape[0])

    def head_layers(self, features: Float[Array, "b d"]) -> dict[str, Float[Array, "b _"]]:
        """What every layer of the head makes of the encoder's features, in evaluation; see `Encoder.layers`."""
        outputs = self.head.outputs(features, train=False)
        return {f"projector{number}.pooled": output for number, output in enumerate(outputs, 1)}
