"""Tensors of safetensors files, read one at a time and only where needed, into the parameters of a network."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
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
    """Names and shapes of all tensors of these safetensors files. Raises ValueError where one is broken."""
    tensors = {}
    for path in files:
        try:
            with safe_open(path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118, it is no mapping
                    tensors[name] = Tensor(name, tuple(file.get_slice(name).get_shape()), _reader(path, name))
        except SafetensorError as error:
            raise ValueError(f"{path} is no complete safetensors file ({error}): copy or download it again") from None
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

    Raises ValueError, with their names, where parameters have no tensor, tensors no parameter, shapes differ, or values
    are not finite.
    """
    graph, state = nnx.split(abstract)
    parameters = {".".join(map(str, path)): p for path, p in nnx.to_flat_state(state)}
    missing = [path for path in parameters if path not in tensors]
    unknown = [tensor.name for path, tensor in tensors.items() if path not in parameters and not ignored(path)]
    if missing or unknown:
        parts = [f"{what}: {_listed(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise ValueError("the file's tensors are not those of this architecture; " + "; ".join(parts))
    for path, p in parameters.items():
        if tensors[path].shape != p.shape:
            raise ValueError(
                f"tensor {tensors[path].name} has values for {path} of shape {tensors[path].shape}, where the "
                f"architecture needs {p.shape}: is config.json that of another checkpoint?"
            )
    places = dict.fromkeys(parameters)
    if shardings is not None:
        places = {".".join(map(str, path)): place for path, place in nnx.to_flat_state(shardings(state))}
    leaves = [
        (path, p.replace(jax.device_put(_finite(tensors[name]), _sharding(places[name]))))
        for (path, p), name in zip(nnx.to_flat_state(state), parameters, strict=True)
    ]
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def _sharding(place: Any) -> Any:
    """A tree of shardings keeps them inside of variables."""
    return place.get_value() if isinstance(place, nnx.Variable) else place


def _finite(tensor: Tensor) -> np.ndarray:
    values = tensor.read()
    if not np.isfinite(values).all():
        raise ValueError(f"tensor {tensor.name} has values that are not finite: copy or download the file again")
    return np.ascontiguousarray(values)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
