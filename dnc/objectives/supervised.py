"""Supervised training on one task's labels: what self-supervised collapse is compared with."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from dnc import errors
from dnc.models.encoder import Encoder
from dnc.models.precision import at_least_float32
from dnc.objectives.base import Objective, by_view, side_by_side
from dnc.types import Array, Batch, Float, Int, Key, Metrics


def cross_entropy(
    logits: Float[Array, "n k"], labels: Int[Array, "n"], label_smoothing: float = 0.0
) -> Float[Array, ""]:
    """Mean over samples of -sum_c q_c log softmax(logits)_c,  q = (1 - a) onehot(label) + a/k,  a = label_smoothing."""
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    true = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -jnp.mean((1.0 - label_smoothing) * true + label_smoothing * jnp.mean(log_p, axis=1))


class ClassifierNetwork(nnx.Module):
    """An encoder and a linear classifier on its features."""

    def __init__(self, encoder: Encoder, num_classes: int, *, rngs: nnx.Rngs):
        self.encoder = encoder
        self.classifier = nnx.Linear(encoder.features, num_classes, dtype=encoder.dtype, rngs=rngs)

    def __call__(self, views: Float[Array, "v b h w c"], *, train: bool) -> Float[Array, "v b k"]:
        features = self.encoder(side_by_side(views), train=train)
        return by_view(at_least_float32(self.classifier(features)), views.shape[0])


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """Cross-entropy of a linear classifier on the features; both views count as labeled images.

    task: whose labels to learn. num_classes: how many there are.
    label_smoothing: share of the target's mass that is spread evenly over all classes.
    """

    separable: ClassVar[bool] = True
    task: str
    num_classes: int
    label_smoothing: float = 0.0

    def __post_init__(self):
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes}: a classifier needs at least 2 classes")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> ClassifierNetwork:
        return ClassifierNetwork(encoder, self.num_classes, rngs=rngs)

    def loss(self, network: ClassifierNetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        del key  # deterministic
        self.check(batch)
        labels = batch["labels"][self.task]
        views = network(batch["views"], train=True)
        losses = jnp.stack([cross_entropy(logits, labels, self.label_smoothing) for logits in views])
        correct = jnp.argmax(views, axis=-1) == labels[None, :]
        return jnp.mean(losses), {"accuracy": jnp.mean(correct.astype(jnp.float32))}

    def check(self, batch: Batch) -> None:
        if self.task not in batch["labels"]:
            raise errors.unknown("objective.task", self.task, batch["labels"])
