"""Offline linear probe: logistic regression on frozen features, its strength chosen without the test split."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.probes.logistic import LinearClassifier, fit_logistic, is_correct
from dnc.probes.splits import Split, accuracy_by_class, check_splits
from dnc.types import Array, ArrayLike, Float, Int, Key

STRENGTHS = tuple(float(10.0**exponent) for exponent in np.arange(1, -6.5, -0.5))


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """Accuracies of an offline linear probe.

    Attributes:
      offline_test_accuracy: share of test samples classified correctly (all samples weigh the same).
      offline_train_accuracy: the same for the training samples that the classifier was fitted on.
      offline_test_per_class: share of each class's test samples; nan for a class without any.
      strength: the chosen penalty.
      strengths: all candidates, from strong to weak.
      validation_accuracy: of each strength, on the held-back training samples, which its fit left out.
      gradient: largest entry of the last fit's gradient divided by its objective; above the tolerance, the fit ended
        because float32 could not lower the objective any more, or after `max_iterations`.
      iterations: of the last fit.
    """

    offline_test_accuracy: Float[Array, ""]
    offline_train_accuracy: Float[Array, ""]
    offline_test_per_class: Float[Array, " k"]
    strength: Float[Array, ""]
    strengths: Float[Array, " s"]
    validation_accuracy: Float[Array, " s"]
    gradient: Float[Array, ""]
    iterations: Int[Array, ""]


@converted(train_features=as_numbers, train_labels=as_codes, test_features=as_numbers, test_labels=as_codes)
def linear_probe(
    key: Key[Array, ""],
    train_features: Float[ArrayLike, "n d"],
    train_labels: Int[ArrayLike, " n"],
    test_features: Float[ArrayLike, "q d"],
    test_labels: Int[ArrayLike, " q"],
    num_classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    holdout: float = 0.2,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
) -> LinearProbe:
    """Test accuracy of the best linear classifier of the training features.

        min over W, b of  1/n sum_i CE(z_i W + b, y_i) + strength/2 ||W||_F^2,    z = (x - mean) / deviation

    mean and deviation (1/n) are those of each feature over the training split; features constant there are left out.
    A share `holdout` of each class's training samples is held back, drawn by `key`. The classifier is fitted on the
    others for every strength, each fit starting from the one before, from strong to weak. The strength with the
    highest accuracy on those held back, the strongest of equals, is fitted again on all training samples. The test
    split takes no part in any choice.

    One jitted program over whole arrays: with rows split over the devices of a mesh, features stay where they are, and
    only sums over samples cross. Memory besides the features is a standardized copy of them and a few [n, k] arrays.

    tolerance, max_iterations: of each fit, see `dnc.probes.logistic.fit_logistic`.

    Raises:
      ValueError: a class with fewer than two training samples, features that are not finite or differ in dimension,
        labels outside 0..num_classes-1, strengths that are not positive, a holdout outside (0, 1).
      TypeError: labels that are not integers.
    """
    path = np.sort(np.asarray(strengths, np.float32))[::-1]
    if path.ndim != 1 or not path.size or not (np.isfinite(path) & (path > 0)).all():
        raise ValueError(f"strengths={strengths!r} must be positive and finite, at least one")
    if not 0 < holdout < 1:
        raise ValueError(f"holdout={holdout} must be a share between 0 and 1")
    if not (tolerance > 0 and max_iterations > 0):
        raise ValueError(f"{tolerance=} and {max_iterations=} must be positive")
    splits = check_splits(train_features, train_labels, test_features, test_labels, num_classes, samples_per_class=2)
    values = _probe(key, *splits, jnp.asarray(path), holdout, tolerance, num_classes, max_iterations)
    return LinearProbe(strengths=jnp.asarray(path), **values)


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def _probe(
    key: Key[Array, ""],
    train: Split,
    test: Split,
    strengths: Float[Array, " s"],
    holdout: float | Float[Array, ""],
    tolerance: float | Float[Array, ""],
    num_classes: int,
    max_iterations: int,
) -> dict[str, Any]:
    z, z_test = standardize_by_first(train.features, test.features)
    counts = jnp.bincount(train.labels, length=num_classes)
    _, rank = shuffled_classes(key, train.labels, counts)
    held_back = jnp.clip(jnp.round(holdout * counts.astype(z.dtype)).astype(counts.dtype), 1, counts - 1)
    validation = (rank < held_back[train.labels]).astype(z.dtype)
    fit = functools.partial(fit_logistic, z, train.labels, tolerance=tolerance, max_iterations=max_iterations)

    def one_strength(carry: tuple[Any, ...], strength: Float[Array, ""]) -> tuple[tuple[Any, ...], Float[Array, ""]]:
        start, best = carry
        classifier = fit(1 - validation, strength, start).classifier
        accuracy = jnp.sum(is_correct(classifier.scores(z), train.labels) * validation) / jnp.sum(validation)
        candidate = (accuracy, strength, classifier)
        return (classifier, jax.tree.map(lambda a, b: jnp.where(accuracy > best[0], a, b), candidate, best)), accuracy

    start = LinearClassifier.zeros(z.shape[1], num_classes)
    nothing = (jnp.asarray(-1.0), strengths[0], start)
    (_, (_, strength, start)), accuracies = jax.lax.scan(one_strength, (start, nothing), strengths)
    last = fit(jnp.ones_like(validation), strength, start)
    correct = is_correct(last.classifier.scores(z_test), test.labels)
    return {
        "offline_test_accuracy": jnp.mean(correct),
        "offline_train_accuracy": jnp.mean(is_correct(last.classifier.scores(z), train.labels)),
        "offline_test_per_class": accuracy_by_class(correct, test.labels, num_classes),
        "strength": strength,
        "validation_accuracy": accuracies,
        "gradient": last.gradient,
        "iterations": last.iterations,
    }


def standardize_by_first(
    train: Float[Array, "n d"], test: Float[Array, "q d"]
) -> tuple[Float[Array, "n d"], Float[Array, "q d"]]:
    """Both less the first's mean, divided by its deviation (1/n); 0 where the first is constant but for rounding."""
    mean = jnp.mean(train, axis=0, keepdims=True)
    rest = jnp.mean(train - mean, axis=0, keepdims=True)  # of a large mean, float32 leaves this much
    residuals = train - mean - rest
    peak = jnp.max(jnp.abs(residuals), axis=0, keepdims=True)
    unit = jnp.where(peak > 0, peak, 1)  # squares of what remains neither overflow nor vanish
    deviation = unit * jnp.sqrt(jnp.mean((residuals / unit) ** 2, axis=0, keepdims=True))
    varies = deviation > 4 * jnp.finfo(train.dtype).eps * jnp.max(jnp.abs(train), axis=0, keepdims=True)
    inverse = jnp.where(varies, 1 / jnp.where(varies, deviation, 1), 0)
    return residuals * inverse, (test - mean - rest) * inverse
