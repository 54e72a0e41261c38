"""The online probe: linear classifiers that learn beside any objective, from the features that it computes anyway."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from dnc.models.encoder import Encoder
from dnc.models.precision import at_least_float32
from dnc.models.vit import Tokens
from dnc.objectives.base import Objective
from dnc.objectives.mae import MAE
from dnc.objectives.supervised import cross_entropy
from dnc.types import Array, Batch, Float, Int, Key, Metrics


class ProbeWeight(nnx.Variable):
    """A weight of the probe: not an nnx.Param but, like a running statistic, updated inside the loss. The step's
    gradient, its norm and clipping, weight decay and the optimizer leave it out; checkpoints and layouts do not."""


class Tap(Encoder):
    """An encoder that keeps the features of its first pass in training, until they are taken."""

    def __init__(self, encoder: Any):
        self.encoder = encoder
        self.features, self.dtype = encoder.features, encoder.dtype

    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b d"]:
        features = self.encoder(images, train=train)
        return self._kept(features) if train else features

    def layers(self, images: Float[Array, "b h w c"]) -> dict[str, Float[Array, "b _"]]:
        return self.encoder.layers(images)

    def tokens(self, images: Float[Array, "b h w c"], **options: Any) -> Tokens:
        """For objectives that pool a ViT's tokens themselves."""
        return self.encoder.tokens(images, **options)

    def pooled(self, tokens: Tokens) -> Float[Array, "b d"]:
        return self._kept(self.encoder.pooled(tokens))

    def _kept(self, features: Float[Array, "b d"]) -> Float[Array, "b d"]:
        if not hasattr(self, "kept"):
            self.kept = nnx.Intermediate(jax.lax.stop_gradient(features))
        return features

    def take(self) -> Float[Array, "b d"]:
        (features,) = jax.tree.leaves(nnx.pop(self, nnx.Intermediate))
        return at_least_float32(features)


class Classifiers(nnx.Module):
    """One linear classifier per task on the same features, all zeros at first."""

    def __init__(self, features: int, classes: Mapping[str, int]):
        self.weights = nnx.Dict({task: ProbeWeight(jnp.zeros((features, k))) for task, k in classes.items()})
        self.biases = nnx.Dict({task: ProbeWeight(jnp.zeros(k)) for task, k in classes.items()})

    def scores(self, features: Float[Array, "b d"]) -> dict[str, Float[Array, "b _"]]:
        return {
            task: jnp.dot(features, self.weights[task][...], precision="highest") + self.biases[task][...][None, :]
            for task in self.weights
        }

    def accuracies(self, features: Float[Array, "b d"], labels: Mapping[str, Int[Array, " b"]]) -> Metrics:
        """Share of the samples whose own class has the highest score, for each task."""
        return {
            task: jnp.mean(jnp.argmax(scores, axis=1) == labels[task], dtype=jnp.float32)
            for task, scores in self.scores(features).items()
        }


class ProbedNetwork(nnx.Module):
    """The network of an objective, its encoder tapped, with the classifiers and their optimizer."""

    def __init__(self, network: Any, classifiers: Classifiers, learning_rate: float):
        network.encoder = Tap(network.encoder)
        self.network = network
        self.classifiers = classifiers
        self.optimizer = nnx.Optimizer(classifiers, optax.adam(learning_rate), wrt=ProbeWeight)

    @property
    def encoder(self) -> Tap:
        return self.network.encoder


@dataclasses.dataclass(frozen=True)
class OnlineProbe(Objective):
    """Any objective, watched: one linear classifier per task learns from the features of the first views.

    Each step of training is one step of Adam on the classifiers' mean cross-entropy over the batch, with respect to
    them alone. The features are those that the objective's own pass computed, with gradients stopped: no second
    pass, and no gradient into the encoder. The loss and the network's parameters are what they are without the probe,
    bit for bit unless the compiler fuses the encoder's operations differently (on CPU it does not: tests compare).

    Metrics: `online_train_accuracy_TASK`, of the batch before the classifiers have learned from it, in training mode
    (augmented images, statistics of the batch).

    objective: what trains the network; it passes images [v b ...], the views of one example side by side, through
      `network.encoder` (as `Network` does; DINO and I-JEPA, through the teacher that evaluation reads too), or only
      the first view. MAE is refused: its encoder never sees a whole image in training.
    classes: task -> number of classes. learning_rate: of Adam.
    """

    objective: Objective
    classes: Mapping[str, int]
    learning_rate: float = 1e-3

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise ValueError(f"the probe's learning_rate={self.learning_rate} must be positive")
        if isinstance(self.objective, MAE):
            raise ValueError("MAE never encodes a whole image in training: set config.probe.online=False")

    @property
    def separable(self) -> bool:
        return self.objective.separable

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> ProbedNetwork:
        network = self.objective.network(encoder, rngs=rngs)
        return ProbedNetwork(network, Classifiers(encoder.features, self.classes), self.learning_rate)

    def loss(self, network: Any, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        loss, metrics = self.objective.loss(network.network, batch, key)
        labels = {task: batch["labels"][task] for task in self.classes}
        b = batch["views"].shape[1]
        features = network.encoder.take()
        first = features.reshape(b, -1, features.shape[1])[:, 0]  # the labels are the first view's
        accuracies = network.classifiers.accuracies(first, labels)

        def cross_entropies(classifiers: Classifiers) -> Float[Array, ""]:
            scores = classifiers.scores(first)
            return jnp.sum(jnp.stack([cross_entropy(scores[task], labels[task]) for task in labels]))

        gradients = nnx.grad(cross_entropies, argnums=nnx.DiffState(0, ProbeWeight))(network.classifiers)
        with jax.numpy_dtype_promotion("standard"):  # optax corrects the bias with float ** int32
            network.optimizer.update(network.classifiers, gradients)
        return loss, {**metrics, **{f"online_train_accuracy_{task}": value for task, value in accuracies.items()}}

    def check(self, batch: Batch) -> None:
        if missing := sorted(set(self.classes) - set(batch["labels"])):
            none = f"none of {missing}" if batch["labels"] else "none"
            raise ValueError(
                f"probe.online=True learns from labels, and the training images have {none}: set it to False"
            )
        self.objective.check(batch)
