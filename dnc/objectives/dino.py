"""DINO: a student predicts the prototypes that its slowly following teacher sees in other views of an image."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from dnc import errors
from dnc.models.encoder import Encoder
from dnc.models.heads import PrototypeHead
from dnc.models.vit import Tokens, ViT
from dnc.objectives.base import Objective, by_view, progress_of, side_by_side, vision_transformer
from dnc.objectives.self_distillation import (
    Masks,
    entropy,
    koleo,
    patch_cross_entropy,
    random_masks,
    sinkhorn_knopp,
    update_center,
    view_cross_entropy,
)
from dnc.objectives.teacher import check_momentum, cosine, ema_update, make_teacher
from dnc.types import Array, Batch, Bool, Float, Key, Metrics

CENTERINGS = ("mean", "sinkhorn")


class Center(nnx.Variable):
    """A running mean of the teacher's logits: not an nnx.Param, updated inside the loss, kept in checkpoints."""


class DINONetwork(nnx.Module):
    """The student with its head, and as `encoder` the teacher, which evaluation reads, with its own."""

    def __init__(self, student: ViT, head: PrototypeHead, centers: int):
        self.student, self.student_head = student, head
        self.encoder, self.teacher_head = make_teacher(student), make_teacher(head)
        self.centers = nnx.List([Center(jnp.zeros(len(head.prototypes))) for _ in range(centers)])


@dataclasses.dataclass(frozen=True)
class DINO(Objective):
    """Self-distillation over prototypes (Caron et al. 2021), with DINOv2's additions as options (Oquab et al. 2024).

    The teacher sees the global views, the student these and the local ones; each predicts the teacher's distribution of
    every other view, see `view_cross_entropy`. The encoder is a ViT.

    prototypes, hidden, bottleneck: the head, see `PrototypeHead`.
    student_temperature: divides the student's cosines. teacher_temperature: the teacher's, at the start and from the
      share `temperature_warmup` of training on, linear between.
    momentum: of the teacher, at the start and at the end of training, half a cosine between.
    freeze_last_layer: share of training in which the prototypes are frozen (the paper: the first of 100 epochs). Adam
      counts these steps for them too, so that its first ones after are about 3 times as long as in PyTorch.
    centering: "mean" subtracts a running mean of the teacher's logits of momentum `center_momentum`, used before the
      batch moves it; "sinkhorn" does 3 iterations of Sinkhorn-Knopp over the batch.
    ibot_weight: of the loss at masked patches (iBOT, Zhou et al. 2022), with the same head; 0 masks none. The ViT needs
      mask_token=True. mask_probability, mask_ratio: see `random_masks`, of global views.
    koleo_weight: of `koleo` on the student's features, summed over the global views.
    """

    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.04)
    temperature_warmup: float = 0.0
    momentum: tuple[float, float] = (0.996, 1.0)
    freeze_last_layer: float = 0.01
    centering: str = "mean"
    center_momentum: float = 0.9
    ibot_weight: float = 0.0
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    koleo_weight: float = 0.0

    def __post_init__(self):
        check_momentum(self.momentum)
        if min(self.student_temperature, *self.teacher_temperature) <= 0:
            raise ValueError(f"{self.student_temperature=}, {self.teacher_temperature=}: temperatures are positive")
        if self.centering not in CENTERINGS:
            raise errors.unknown("centering", self.centering, CENTERINGS)
        for name in ("temperature_warmup", "freeze_last_layer", "center_momentum", "mask_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [0, 1]")
        if not 0 <= self.mask_ratio[0] <= self.mask_ratio[1] <= 1:
            raise ValueError(f"mask_ratio={self.mask_ratio}: give (low, high), 0 <= low <= high <= 1")

    def network(self, encoder: Encoder, *, rngs: nnx.Rngs) -> DINONetwork:
        vit = vision_transformer(encoder, "DINO")
        if self.ibot_weight and vit.mask_token is None:
            raise ValueError(f"ibot_weight={self.ibot_weight} masks patches: set config.model.mask_token=True")
        head = PrototypeHead(vit.features, self.prototypes, self.hidden, self.bottleneck, dtype=vit.dtype, rngs=rngs)
        return DINONetwork(vit, head, centers=(1 + bool(self.ibot_weight)) * (self.centering == "mean"))

    def loss(self, network: DINONetwork, batch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        images, v = side_by_side(batch["views"]), len(batch["views"])
        progress = progress_of(batch)
        momentum = cosine(self.momentum, progress)
        ema_update(network.encoder, network.student, momentum)
        ema_update(network.teacher_head, network.student_head, momentum)
        mask_key, global_key, local_key = jax.random.split(key, 3)

        teacher_tokens = network.encoder.tokens(images)
        logits = network.teacher_head(network.encoder.pooled(teacher_tokens))
        teacher = by_view(self._distributions(network, 0, logits, progress), v)

        frozen = progress < self.freeze_last_layer
        masks = self._masks(mask_key, teacher_tokens)
        student_tokens = network.student.tokens(images, mask=None if masks is None else masks.mask, key=global_key)
        features = network.student.pooled(student_tokens)
        student = by_view(network.student_head(features, frozen=frozen), v)
        if "local_views" in batch:
            local = network.student.tokens(side_by_side(batch["local_views"]), key=local_key)
            local_logits = network.student_head(network.student.pooled(local), frozen=frozen)
            student = jnp.concatenate([student, by_view(local_logits, len(batch["local_views"]))])

        loss = view_cross_entropy(student, teacher, self.student_temperature)
        metrics = _teacher_metrics(loss, teacher) | {"teacher_momentum": momentum}
        if masks is not None:
            ibot = self._ibot(network, masks, teacher_tokens, student_tokens, progress, frozen)
            loss, metrics = loss + self.ibot_weight * ibot, metrics | {"ibot": ibot}
        if self.koleo_weight:
            spread = sum((koleo(view) for view in by_view(features, v)), jnp.zeros((), features.dtype))
            loss, metrics = loss + self.koleo_weight * spread, metrics | {"koleo": spread}
        return loss, jax.lax.stop_gradient(metrics)

    def _distributions(
        self,
        network: DINONetwork,
        center: int,
        logits: Float[Array, "n k"],
        progress: Float[Array, ""],
        where: Bool[Array, "n"] | None = None,
    ) -> Float[Array, "n k"]:
        """The teacher's, without gradient; moves the center of that number afterwards."""
        logits = jax.lax.stop_gradient(logits)
        start, end = self.teacher_temperature
        warm = jnp.minimum(progress / self.temperature_warmup, 1.0) if self.temperature_warmup else 1.0
        temperature = start + (end - start) * warm
        if self.centering == "sinkhorn":
            return sinkhorn_knopp(logits, temperature, where=where)
        mean = network.centers[center]
        distributions = jax.nn.softmax((logits - mean[None]) / temperature)
        mean[...] = update_center(mean[...], logits, self.center_momentum, where)
        return distributions

    def _masks(self, key: Key[Array, ""], tokens: Tokens) -> Masks | None:
        if not self.ibot_weight:
            return None
        n, patches, _ = tokens.patches.shape
        return random_masks(key, n, patches, self.mask_probability, self.mask_ratio)

    def _ibot(
        self,
        network: DINONetwork,
        masks: Masks,
        teacher_tokens: Tokens,
        student_tokens: Tokens,
        progress: Float[Array, ""],
        frozen: Bool[Array, ""],
    ) -> Float[Array, ""]:
        """The loss at the masked patches, which the teacher sees and the student does not."""
        n, m = masks.patches.shape

        def masked(patches: Float[Array, "n p d"]) -> Float[Array, "r d"]:
            return jnp.take_along_axis(patches, masks.patches[:, :, None], axis=1).reshape(n * m, -1)

        logits = network.teacher_head(masked(teacher_tokens.patches))
        teacher = self._distributions(network, 1, logits, progress, masks.valid.reshape(-1))
        student = network.student_head(masked(student_tokens.patches), frozen=frozen)
        return patch_cross_entropy(
            student.reshape(n, m, -1), teacher.reshape(n, m, -1), self.student_temperature, masks.valid
        )


def _teacher_metrics(loss: Float[Array, ""], teacher: Float[Array, "g b k"]) -> Metrics:
    """Collapse shows: all distributions uniform is a teacher_entropy of log k, all on one, a prototype_entropy of 0.

    teacher_entropy: mean entropy of the teacher's distributions. prototype_entropy: entropy of their mean.
    teacher_kl: mean divergence of the student from the teacher, the loss less the entropy.
    """
    mean_entropy = jnp.mean(entropy(teacher))
    return {
        "dino": loss,
        "teacher_entropy": mean_entropy,
        "teacher_kl": loss - mean_entropy,
        "prototype_entropy": entropy(jnp.mean(teacher, axis=(0, 1))),
    }
