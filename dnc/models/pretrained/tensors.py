"""Tensors of safetensors files, read one at a time and only where needed, into the parameters of a network."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

LISTED = 20  # names in an error

M = TypeVar("M", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What a file holds under a name: its shape, and how to read it."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def then(self, change: Callable[[np.ndarray], np.ndarray]) -> "Tensor":
        """The tensor changed once it is read; its shape is found without reading it."""
        shape = change(np.broadcast_to(np.float32(0), self.shape)).shape
        return Tensor(self.name, shape, lambda: change(self.read()))


def read_tensors(files: Iterable[pathlib.Path]) -> dict[str, Tensor]:
    """Names and shapes of all tensors of these safetensors files. Raises ValueError if one is broken."""
    tensors = {}
    for path in files:
        try:
            with safe_open(path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118, it is not a mapping
                    tensors[name] = Tensor(name, tuple(file.get_slice(name).get_shape()), _reader(path, name))
        except SafetensorError as error:
            raise ValueError(
                f"{path} is not a complete safetensors file ({error}): copy or download it again"
            ) from None
    return tensors


def _reader(path: pathlib.Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with safe_open(path, "numpy") as file:
            return file.get_tensor(name).astype(np.float32)

    return read


def filled(
    abstract: M,
    tensors: Mapping[str, Tensor],
    ignored: Callable[[str], bool],
    shardings: Callable[[Any], Any] | None = None,
) -> M:
    """A module of shapes alone with the tensors as its parameters and statistics, float32.

    tensors: by the parameter's path, joined with dots. ignored: whether a tensor without a parameter of its path may be
    left out. shardings: from the abstract state to a tree of where each array goes; by default, the default device.

    Raises ValueError, with their names, if parameters have no tensor, tensors no parameter, shapes differ, or values
    are not finite.
    """
    graph, state = nnx.split(abstract)
    leaves, tree = jax.tree.flatten_with_path(state)
    names = [jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value") for keys, _ in leaves]
    _check({name: leaf.shape for name, (_, leaf) in zip(names, leaves, strict=True)}, tensors, ignored)
    places = [None] * len(names) if shardings is None else jax.tree.leaves(shardings(state))
    arrays = [jax.device_put(_finite(tensors[name]), place) for name, place in zip(names, places, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, arrays))


def _check(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], ignored: Callable[[str], bool]
) -> None:
    missing = [path for path in shapes if path not in tensors]
    unknown = [tensor.name for path, tensor in tensors.items() if path not in shapes and not ignored(path)]
    if missing or unknown:
        parts = [f"{what}: {_listed(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise ValueError("the file's tensors are not those of this architecture; " + "; ".join(parts))
    for path, shape in shapes.items():
        if tensors[path].shape != shape:
            raise ValueError(
                f"tensor {tensors[path].name} gives {path} the shape {tensors[path].shape}, where the "
                f"architecture needs {shape}: is config.json that of another checkpoint?"
            )


def _finite(tensor: Tensor) -> np.ndarray:
    values = tensor.read()
    if not np.isfinite(values).all():
        raise ValueError(f"tensor {tensor.name} has values that are not finite: copy or download the file again")
    return np.ascontiguousarray(values)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
