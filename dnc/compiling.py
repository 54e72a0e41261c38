"""How much time XLA spends on a program on CPU, where a first analysis is mostly compilation."""

import functools
from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar

import jax
from jax.core import Tracer

F = TypeVar("F", bound=Callable[..., Any])

ONCE = {"xla_backend_optimization_level": 0}  # for a program that runs once, in less time than it compiles


def jit_quickly(function: F, **options: Any) -> F:
    """`jax.jit` for programs of an analysis, which on CPU then compile in about two thirds of the time and run as fast,
    unless they take logarithms and roots of millions of numbers, which only `jax.jit` computes many of at once.

    They go without XLA's newer code generator for fusions (jaxlib before 0.11 has a choice). Training steps run faster
    with it, and keep it. Inside another program, whose options hold for all of it, this is `jax.jit`; that it is inside
    one shows in traced arguments, so that a call there needs at least one.
    """
    plain = jax.jit(function, **options)

    @functools.cache
    def quick() -> Any:
        return jax.jit(function, compiler_options=_quick_options(), **options)

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        inside = any(isinstance(x, Tracer) for x in jax.tree.leaves((args, kwargs)))
        return (plain if inside else quick())(*args, **kwargs)

    return call  # pyright: ignore[reportReturnType]


def _quick_options() -> dict[str, bool]:
    """Asked for at the first call: the backend starts then."""
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    return {"xla_cpu_use_fusion_emitters": False} if version < (0, 11) and jax.default_backend() == "cpu" else {}
