"""A teacher: a copy of the student that follows it slowly and that no gradient, optimizer or decay touches."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from dnc.types import Array, Float

Module = TypeVar("Module", bound=nnx.Module)


class Teacher(nnx.Variable):
    """A parameter of a teacher: not an nnx.Param but, like a running statistic, updated inside the loss. It belongs to
    the rest of the training state, which checkpoints, layouts and donation cover."""


def make_teacher(student: Module) -> Module:
    """A copy of a module, equal to it now, whose parameters are `Teacher` variables."""
    graphdef, params, rest = nnx.split(student, nnx.Param, ...)
    copies = jax.tree.map(
        lambda param: Teacher(jnp.copy(param[...])), params, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )
    return nnx.merge(graphdef, copies, rest, copy=True)


def ema_update(teacher: nnx.Module, student: nnx.Module, momentum: Float[Array, ""]) -> None:
    """theta_teacher <- m theta_teacher + (1 - m) theta_student, in place; exactly nothing where the two are equal.

    Called first in a loss, it does what papers do after the update: the student is then what the last step left. So m
    is this step's, not the last one's, and a saved teacher has yet to follow the last update.
    """
    targets, treedef = jax.tree.flatten(nnx.state(teacher, Teacher))
    sources = jax.tree.leaves(nnx.state(student, nnx.Param))
    moved = [
        t + (1.0 - momentum).astype(t.dtype) * (jax.lax.stop_gradient(s) - t)
        for t, s in zip(targets, sources, strict=True)
    ]
    nnx.update(teacher, jax.tree.unflatten(treedef, moved))


def linear(ends: tuple[float, float], progress: Float[Array, ""]) -> Float[Array, ""]:
    """From the first value, where training starts, straight to the second, where it ends."""
    start, end = ends
    return start + (end - start) * progress


def cosine(ends: tuple[float, float], progress: Float[Array, ""]) -> Float[Array, ""]:
    """From the first value, where training starts, along half a cosine to the second, where it ends."""
    start, end = ends
    return end + (start - end) * (1.0 + jnp.cos(jnp.pi * progress)) / 2


def check_momentum(momentum: tuple[float, float]) -> None:
    """Raises ValueError unless both ends of the schedule are in [0, 1]."""
    if not all(0 <= m <= 1 for m in momentum):
        raise ValueError(f"momentum={momentum}: give the teacher's first and last momentum, each in [0, 1]")
