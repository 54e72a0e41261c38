"""Measured few-shot error of logistic regression, on the supports of the nearest-class-center classifier."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dnc.few_shot.draws import check_few_shot_inputs, draw_support
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.shots import check_shots
from dnc.probes.logistic import LinearClassifier, fit_logistic, is_correct
from dnc.types import Array, ArrayLike, Float, Int, Key

_ROWS = 4096  # queries scored at once


@dataclasses.dataclass(frozen=True)
class FewShotLinearError:
    """Few-shot error of logistic regression, averaged over repeats.

    Attributes:
      shots: shots per class.
      mean: mean over classes (so classes weigh the same), then over repeats.
      std: standard deviation over repeats (1/r) of the mean over classes.
      per_class: fraction of class i's queries for which another class scores at least as high.
    """

    shots: tuple[int, ...]
    mean: Float[Array, " m"]
    std: Float[Array, " m"]
    per_class: Float[Array, "m k"]


@converted(features=as_numbers, labels=as_codes)
def few_shot_linear_error(
    key: Key[Array, ""],
    features: Float[ArrayLike, "n d"],
    labels: Int[ArrayLike, " n"],
    shots: Sequence[int],
    repeats: int,
    num_classes: int,
    *,
    strength: float = 1e-3,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> FewShotLinearError:
    """Error of logistic regression on m shots per class, for every m in `shots`, over `repeats` random supports.

        min over W, b of  1/(m k) sum over the support of CE(z W + b, y) + strength/2 ||W||_F^2,    z = (x - mean) / s

    mean is that of the m k support samples and s^2 their mean squared distance from it: one number, so that the probe
    is invariant to translation, scale and rotation, and nothing but the support is learned from. `strength` is fixed:
    a few shots cannot choose it.

    The protocol is that of `dnc.few_shot_error`, and with the same key, labels, shots and repeats so are the supports
    and queries: differences between the two errors are paired. A tie is an error. One repeat is in memory
    at a time.

    Raises what `few_shot_error` does, and ValueError for a strength or tolerance that is not positive.
    """
    if not (strength > 0 and tolerance > 0 and max_iterations > 0):
        raise ValueError(f"{strength=}, {tolerance=} and {max_iterations=} must be positive")
    sizes = check_shots(shots)
    array, _ = check_few_shot_inputs(features, labels, shots, repeats, num_classes)
    wrong = _measure(
        jax.random.split(key, repeats),
        array,
        jnp.asarray(labels),
        jnp.asarray(strength, array.dtype),
        tolerance,
        shots=sizes,
        num_classes=num_classes,
        max_iterations=max_iterations,
    )
    error = jnp.mean(wrong, axis=2)
    return FewShotLinearError(
        shots=sizes, mean=jnp.mean(error, axis=0), std=jnp.std(error, axis=0), per_class=jnp.mean(wrong, axis=0)
    )


@functools.partial(jax.jit, static_argnames=("shots", "num_classes", "max_iterations"))
def _measure(
    keys: Key[Array, " r"],
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    strength: Float[Array, ""],
    tolerance: float | Float[Array, ""],
    *,
    shots: tuple[int, ...],
    num_classes: int,
    max_iterations: int,
) -> Float[Array, "r m k"]:
    """Fractions of wrong queries by class."""
    counts = jnp.bincount(labels, length=num_classes)

    classes = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), max(shots))
    column = jnp.tile(jnp.arange(max(shots), dtype=jnp.int32), num_classes)
    start = LinearClassifier.zeros(features.shape[1], num_classes)

    def one_repeat(key: Key[Array, ""]) -> Float[Array, "m k"]:
        support, rank = draw_support(key, labels, counts, max(shots))
        x = features[support.reshape(-1)]

        def of_shots(m: Int[Array, ""]) -> Float[Array, " k"]:
            chosen = (column < m).astype(x.dtype)  # all shots have one shape: one program fits them all
            share = chosen / jnp.sum(chosen)
            mean = jnp.dot(share, x, precision="highest")
            square = jnp.sum(share * jnp.sum((x - mean[None, :]) ** 2, axis=1))
            inverse = jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
            z = (x - mean[None, :]) * inverse
            fit = fit_logistic(z, classes, chosen, strength, start, tolerance=tolerance, max_iterations=max_iterations)

            def correct(sample: tuple[Float[Array, " d"], Int[Array, ""]]) -> Float[Array, ""]:
                scores = fit.classifier.scores((sample[0] - mean)[None, :] * inverse)
                return is_correct(scores, sample[1][None])[0]

            wrong = 1 - jax.lax.map(correct, (features, labels), batch_size=_ROWS)
            queries = (rank >= m).astype(wrong.dtype)
            sums = jax.ops.segment_sum(wrong * queries, labels, num_segments=num_classes)
            return sums / (counts - m).astype(wrong.dtype)

        return jax.lax.map(of_shots, jnp.asarray(shots, jnp.int32))

    return jax.lax.map(one_repeat, keys)
