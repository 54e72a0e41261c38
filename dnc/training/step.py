"""One jitted training step: make views, differentiate the objective, update."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from dnc import compiling
from dnc.objectives.base import Objective
from dnc.training.state import TrainState
from dnc.types import EXAMPLE_AXIS, Array, Batch, Float, Key, Metrics

MakeViews = Callable[[Any, Key[Array, ""]], Batch]
Step = jax.stages.Wrapped  # (TrainState, Any) -> (TrainState, Metrics)


def make_step(
    graphdef: nnx.GraphDef,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    make_views: MakeViews,
    key: Key[Array, ""],
    total_steps: int,
    accumulate: int = 1,
) -> Step:
    """The step as a function (state, batch) -> (state, metrics); the state's buffers are donated.

    Views and the loss draw from `fold_in(key, step)`, so that a resumed run repeats an uninterrupted one exactly.
    Metrics hold the loss, the global norms of the gradient (before clipping) and of the updated parameters, and those
    of the objective.

    total_steps: how long training is, for schedules of the objective.
    accumulate: micro-batches whose gradients are averaged in turn, so only one micro-batch's activations are live.
    For a separable objective this is the same step, except that normalization over the batch sees a micro-batch.
    """

    def loss_fn(
        params: nnx.State, rest: nnx.State, views: Batch, loss_key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Metrics, nnx.State]]:
        network = nnx.merge(graphdef, params, rest, copy=True)
        loss, metrics = objective.loss(network, views, loss_key)
        _, _, rest = nnx.split(network, nnx.Param, ...)
        return loss, ({"loss": loss, **metrics}, rest)

    differentiate = jax.grad(loss_fn, has_aux=True)

    @partial(jax.jit, donate_argnames="state")
    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        views_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
        views = make_views(batch, views_key)
        views["progress"] = state.step.astype(jnp.float32) / total_steps
        if accumulate == 1:
            gradients, (metrics, rest) = differentiate(state.params, state.rest, views, loss_key)
        else:

            def add(rest: nnx.State, part: tuple[Batch, Key[Array, ""]]) -> tuple[nnx.State, Any]:
                gradients, (metrics, rest) = differentiate(state.params, rest, *part)
                return rest, (gradients, metrics)

            parts = _micro_batches(views, accumulate), jax.random.split(loss_key, accumulate)
            rest, (gradients, metrics) = _scan_and_average(add, state.rest, parts)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = cast(nnx.State, optax.apply_updates(state.params, updates))
        norms = {"gradient_norm": optax.tree.norm(gradients), "parameter_norm": optax.tree.norm(params)}
        return TrainState(state.step + 1, params, rest, opt_state), {**metrics, **norms}

    return step


def _micro_batches(batch: Batch, count: int) -> Batch:
    """Every `count`-th example into one part, so that a batch split over devices stays where it is."""

    def split(x: Array, axis: int) -> Array:
        if not x.ndim:
            return jnp.broadcast_to(x, (count,))
        shape = (*x.shape[:axis], x.shape[axis] // count, count, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis + 1, 0)

    axes = {key: EXAMPLE_AXIS.get(key, 0) for key in batch}
    return cast(Batch, {key: jax.tree.map(partial(split, axis=axes[key]), batch[key]) for key in batch})


def _scan_and_average(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, parts: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`, with the mean of the outputs instead of their stack."""
    count = jax.tree.leaves(parts)[0].shape[0]
    shapes = jax.eval_shape(body, carry, jax.tree.map(lambda x: x[0], parts))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(so_far: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        carry, output = body(so_far[0], part)
        return (carry, jax.tree.map(lambda total, x: total + x / count, so_far[1], output)), None

    result, _ = jax.lax.scan(add, (carry, zeros), parts)
    return result


@partial(jax.jit, static_argnames="make_views", compiler_options=compiling.ONCE)
def views_difference(make_views: MakeViews, batch: Any, key: Key[Array, ""]) -> Float[Array, ""]:
    """Largest absolute difference between two views of a batch: 0 means that they are the same picture.

    Infinite if there is one view, which is enough for a method without pairs.
    """
    first, *others = make_views(batch, key)["views"]
    return jnp.max(jnp.abs(jnp.stack(others) - first[None])) if others else jnp.array(jnp.inf)
