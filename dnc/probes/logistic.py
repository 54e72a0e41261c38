"""Multinomial logistic regression with an L2 penalty, fitted to its optimum: the classifier of linear probes."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from dnc.types import Array, Bool, Float, Int

_STALLED = 5  # iterations without a smaller objective: what is left to gain is below float32's resolution


class LinearClassifier(NamedTuple):
    """Scores x W + b."""

    weight: Float[Array, "d k"]
    bias: Float[Array, " k"]

    @classmethod
    def zeros(cls, dimension: int, num_classes: int) -> "LinearClassifier":
        return cls(jnp.zeros((dimension, num_classes)), jnp.zeros(num_classes))

    def scores(self, features: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return jnp.dot(features, self.weight, precision="highest") + self.bias[None, :]


class Fit(NamedTuple):
    """A classifier, and its distance from the optimum: the gradient's largest absolute entry over the objective."""

    classifier: LinearClassifier
    gradient: Float[Array, ""]
    iterations: Int[Array, ""]


def logistic_objective(
    classifier: LinearClassifier,
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    strength: Float[Array, ""],
) -> Float[Array, ""]:
    """F(W, b) = 1/(sum_i w_i) sum_i w_i CE(x_i W + b, y_i) + strength/2 ||W||_F^2.

    The mean over samples, not the sum; b is not penalized. scikit-learn's LogisticRegression(C) has the same minimum
    for strength = 1/(C n).
    """
    scores = classifier.scores(features)
    margins = scores - jnp.take_along_axis(scores, labels[:, None], axis=1)
    rivals = jax.nn.logsumexp(jnp.where(_own(scores, labels), -jnp.inf, margins), axis=1)
    losses = jax.nn.softplus(rivals)  # not -log softmax: a loss near 0 would be a difference of large scores
    return jnp.sum(losses * (weights / jnp.sum(weights))) + strength / 2 * jnp.sum(classifier.weight**2)


def fit_logistic(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    strength: Float[Array, ""],
    start: LinearClassifier,
    *,
    tolerance: float | Float[Array, ""],
    max_iterations: int,
) -> Fit:
    """The minimum of `logistic_objective` by L-BFGS (Liu and Nocedal 1989) from `start`, all samples in every step.

    Stops when no entry of the gradient exceeds `tolerance` times the objective, or the objective has not fallen for a
    few iterations, or after `max_iterations`.
    """

    def objective(classifier: LinearClassifier) -> Float[Array, ""]:
        return logistic_objective(classifier, features, labels, weights, strength)

    optimizer = optax.lbfgs(memory_size=20)
    evaluate = optax.value_and_grad_from_state(objective)

    def relative(value: Float[Array, ""], gradient: LinearClassifier) -> Float[Array, ""]:
        return jnp.maximum(jnp.max(jnp.abs(gradient.weight)), jnp.max(jnp.abs(gradient.bias))) / value

    def unfinished(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        fit, _, _, stalled = carry
        return (fit.gradient > tolerance) & (fit.iterations < max_iterations) & (stalled < _STALLED)

    def iterate(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        fit, state, best, stalled = carry
        classifier = fit.classifier
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax's line search needs both
            value, gradient = evaluate(classifier, state=state)
            updates, state = optimizer.update(
                gradient, state, classifier, value=value, grad=gradient, value_fn=objective
            )
        value, gradient = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
        classifier = cast(LinearClassifier, optax.apply_updates(classifier, updates))
        fit = Fit(classifier, relative(value, gradient), fit.iterations + 1)
        return fit, state, jnp.minimum(best, value), jnp.where(value < best, 0, stalled + 1)

    value, gradient = jax.value_and_grad(objective)(start)
    zero = jnp.zeros((), jnp.int32)
    carry = (Fit(start, relative(value, gradient), zero), optimizer.init(start), value, zero)
    return jax.lax.while_loop(unfinished, iterate, carry)[0]


def is_correct(scores: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """1 where a sample's own class scores higher than every other, else 0: a tie is an error."""
    rival = jnp.max(jnp.where(_own(scores, labels), -jnp.inf, scores), axis=1)
    return (jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0] > rival).astype(scores.dtype)


def _own(scores: Float[Array, "n k"], labels: Int[Array, " n"]) -> Bool[Array, "n k"]:
    return labels[:, None] == jnp.arange(scores.shape[1], dtype=labels.dtype)[None, :]
