"""Losses between a student's and a teacher's distributions over prototypes, and what keeps them from collapsing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnc.models.heads import normalize
from dnc.models.precision import at_least_float32
from dnc.objectives.base import check_comparable
from dnc.types import Array, Bool, Float, Int, Key


def view_cross_entropy(
    student: Float[Array, "s b k"], teacher: Float[Array, "g b k"], temperature: float | Float[Array, ""]
) -> Float[Array, ""]:
    """DINO's loss (Caron et al. 2021, eq. 3): the student's views predict the teacher's distribution of other views.

    L = mean over images and over pairs (i, j), i != j, of  -sum_k teacher[i]_k log softmax(student[j] / temperature)_k

    student: logits of s views, of which the first g are the teacher's. Raises ValueError if there is no pair.
    """
    g, s = teacher.shape[0], student.shape[0]
    pairs = g * s - min(g, s)
    if not pairs:
        raise ValueError("DINO compares different views of an image, and there is one: give two, or local views")
    log_p = jax.nn.log_softmax(at_least_float32(student) / temperature)
    total = -jnp.einsum("gbk,sbk->gs", teacher, log_p, precision="highest")
    return jnp.sum(jnp.where(jnp.eye(g, s, dtype=bool), 0.0, total)) / (pairs * student.shape[1])


def patch_cross_entropy(
    student: Float[Array, "n m k"],
    teacher: Float[Array, "n m k"],
    temperature: float | Float[Array, ""],
    masked: Bool[Array, "n m"],
) -> Float[Array, ""]:
    """iBOT's loss (Zhou et al. 2022, eq. 2): the student predicts the teacher's distribution at each masked patch.

    The mean over an image's masked patches, 0 where there are none, and of that the mean over all images, as in
    DINOv2's code. student: logits.
    """
    log_p = jax.nn.log_softmax(at_least_float32(student) / temperature)
    losses = jnp.sum(jnp.where(masked, -jnp.sum(teacher * log_p, axis=-1), 0.0), axis=1)
    return jnp.mean(losses / jnp.maximum(jnp.sum(masked, axis=1, dtype=losses.dtype), 1.0))


def update_center(
    center: Float[Array, "k"],
    logits: Float[Array, "n k"],
    momentum: float | Float[Array, ""],
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, "k"]:
    """momentum * center + (1 - momentum) * mean of the logits that `where` marks; unchanged if none is marked.

    Caron et al. (2021), eq. 4.
    """
    rows = jnp.ones(len(logits), bool) if where is None else where
    mean = jnp.sum(logits, axis=0, where=rows[:, None]) / jnp.maximum(jnp.sum(rows, dtype=logits.dtype), 1.0)
    return jnp.where(jnp.any(rows), momentum * center + (1.0 - momentum) * mean, center)


def sinkhorn_knopp(
    logits: Float[Array, "n k"],
    temperature: float | Float[Array, ""],
    iterations: int = 3,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, "n k"]:
    """Distributions that use all prototypes equally (Caron et al. 2020, SwAV), over the whole batch.

    exp(logits / temperature), then `iterations` times: each prototype's column divided by its sum over samples,
    each sample's row divided by its sum. Only rows that `where` marks count; computed on logarithms.
    """
    # If no row counts, all do: finite numbers have gradient 0 after a mask, nan would not.
    rows = None if where is None else (where | ~jnp.any(where))[:, None]

    def divide(_: Int[Array, ""] | int, log_q: Float[Array, "n k"]) -> Float[Array, "n k"]:
        log_q = log_q - jax.nn.logsumexp(log_q, axis=0, keepdims=True, where=rows)
        return log_q - jax.nn.logsumexp(log_q, axis=1, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, divide, logits / temperature))


def koleo(features: Float[Array, "b d"]) -> Float[Array, ""]:
    """The Kozachenko-Leonenko regularizer (Sablayrolles et al. 2019), as in DINOv2's code.

    -1/b sum_i log(||x_i - x_nn(i)|| + 1e-8) of features of length 1, nn(i) the nearest other of the global batch.
    The 1e-8 that PyTorch adds to every difference keeps the gradient of two equal features finite.
    """
    check_comparable(features)
    x = normalize(at_least_float32(features))
    cosines = jnp.dot(x, x.T, precision="highest")
    nearest = jnp.argmax(jnp.where(jnp.eye(len(x), dtype=bool), -jnp.inf, cosines), axis=1)
    return -jnp.mean(jnp.log(jnp.linalg.norm(x - x[nearest] + 1e-8, axis=1) + 1e-8))


def entropy(p: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """-sum p log p, in nats."""
    return jnp.sum(jax.scipy.special.entr(p), axis=-1)


class Masks(NamedTuple):
    """Which patches are masked; and the same as patch numbers, with flags that tell valid ones from padding."""

    mask: Bool[Array, "n p"]
    patches: Int[Array, "n m"]
    valid: Bool[Array, "n m"]


def random_masks(
    key: Key[Array, ""], images: int, patches: int, probability: float, ratio: tuple[float, float]
) -> Masks:
    """Each image is masked with a probability, then a uniform share of its patches, of random ones, at least one.

    Patches are masked independently of each other; DINOv2's code masks rectangles instead.
    """
    coin_key, ratio_key, order_key = jax.random.split(key, 3)
    share = jax.random.uniform(ratio_key, (images,), minval=ratio[0], maxval=ratio[1])
    most = max(int(ratio[1] * patches), 1)
    count = jnp.clip(jnp.floor(share * patches).astype(jnp.int32), 1, most)
    count = jnp.where(jax.random.bernoulli(coin_key, probability, (images,)), count, 0)
    order = jnp.argsort(jax.random.uniform(order_key, (images, patches)), axis=1)
    return Masks(
        jnp.argsort(order, axis=1) < count[:, None],
        order[:, :most],
        jnp.arange(most, dtype=jnp.int32)[None] < count[:, None],
    )
