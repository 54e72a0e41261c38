"""Frozen dataclasses of arrays that JAX can carry through jit, vmap and scan."""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def array_dataclass(cls: type[T]) -> type[T]:
    """A frozen dataclass registered as a pytree whose fields are children, except those marked `static()`.

    Unlike `jax.tree_util.register_dataclass`, rebuilding skips `__init__`: transformations also rebuild trees
    with placeholders, shapes and batched arrays, which annotations checked at run time would refuse.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = tuple(field.name for field in fields if not field.metadata.get("static"))
    constants = tuple(field.name for field in fields if field.metadata.get("static"))

    def flatten_with_keys(value: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        return [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in names], settings(value)

    def flatten(value: T) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in names], settings(value)

    def settings(value: T) -> tuple[Any, ...]:
        return tuple(getattr(value, name) for name in constants)

    def unflatten(known: tuple[Any, ...], children: Iterable[Any]) -> T:
        value = object.__new__(cls)
        for name, child in zip((*names, *constants), (*children, *known), strict=True):
            object.__setattr__(value, name, child)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def static(default: Any) -> Any:
    """A field that is compiled in, not traced: a hashable setting."""
    return dataclasses.field(default=default, metadata={"static": True})
