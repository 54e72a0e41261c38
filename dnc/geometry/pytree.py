"""Frozen dataclasses of arrays that JAX can carry through jit, vmap and scan."""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def array_dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass registered as a pytree whose every field is a child.

    Unlike `jax.tree_util.register_dataclass`, rebuilding skips `__init__`: transformations also rebuild trees
    with placeholders, shapes and batched arrays, which annotations checked at run time would refuse.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]

    def flatten_with_keys(value: T) -> tuple[list[tuple[Any, Any]], None]:
        return [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in names], None

    def flatten(value: T) -> tuple[list[Any], None]:
        return [getattr(value, name) for name in names], None

    def unflatten(_: None, children: Iterable[Any]) -> T:
        value = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(value, name, child)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
