"""One jitted training step: make views, differentiate the objective, update."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from dnc.objectives.base import Objective
from dnc.training.state import TrainState
from dnc.types import Array, Batch, Float, Key

Metrics = dict[str, Float[Array, ""]]
MakeViews = Callable[[Any, Key[Array, ""]], Batch]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def make_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    make_views: MakeViews,
    key: Key[Array, ""],
) -> Step:
    """The step as a function (state, batch) -> (state, metrics); the state's buffers are donated.

    Views and the loss draw from `fold_in(key, step)`, so that a resumed run repeats an uninterrupted one exactly.
    Metrics hold the loss, the global norms of the gradient (before clipping) and of the updated parameters, and what
    the objective reports.
    """

    @partial(jax.jit, donate_argnames="state")
    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        views_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        views = make_views(batch, views_key)

        def loss_fn(params: nnx.State) -> tuple[Float[Array, ""], tuple[Metrics, nnx.State]]:
            network = nnx.merge(graphdef, params, state.rest, copy=True)
            loss, metrics = objective.loss(network, views, loss_key)
            _, _, rest = nnx.split(network, nnx.Param, ...)
            return loss, (metrics, rest)

        (loss, (metrics, rest)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = cast(nnx.State, optax.apply_updates(state.params, updates))
        norms = {"gradient_norm": optax.tree.norm(gradients), "parameter_norm": optax.tree.norm(params)}
        metrics = {"loss": loss, **norms, **metrics}
        return TrainState(state.step + 1, params, rest, opt_state), metrics

    return step


@partial(jax.jit, static_argnames="make_views")
def views_difference(make_views: MakeViews, batch: Any, key: Key[Array, ""]) -> Float[Array, ""]:
    """Largest absolute difference between the two views of a batch: 0 means that they are the same picture."""
    first, second = make_views(batch, key)["views"]
    return jnp.max(jnp.abs(first - second))
