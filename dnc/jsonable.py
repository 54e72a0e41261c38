"""Numbers as JSON holds them, and back: arrays as lists, nan and inf as null."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Arrays as lists, nan and inf as None, keys as strings: what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            finite, array = np.isfinite(array), array.astype(object)
            array[~finite] = None
        return array.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(values: np.ndarray) -> np.ndarray:
    """Integers, unless one is missing."""
    return values.astype(int) if np.isfinite(values).all() else values


def number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def numbers(values: Mapping[str, float | None] | None) -> dict[str, float]:
    return {name: number(value) for name, value in (values or {}).items()}


def array(values: Sequence[Any] | np.ndarray | None, shape: tuple[int | None, ...]) -> np.ndarray:
    """Numbers as float64, null as nan; all nan where `values` is missing. None in `shape` stands for any size."""
    if values is None:
        return np.full([size or 0 for size in shape], math.nan)
    array = np.array(values, float)
    if array.ndim != len(shape) or any(size not in (None, n) for size, n in zip(shape, array.shape, strict=True)):
        raise ValueError(f"expected numbers of shape {shape}, found shape {array.shape}")
    return array
