"""Numbers of labeled examples: the same of every class, or one number for each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnc.types import Int


def check_shots(shots: Any) -> tuple[int, ...]:
    """Shots as a tuple of positive integers: of all classes alike."""
    if isinstance(shots, Mapping) or _is_single(shots):
        raise ValueError(f"shots={shots!r} must be a sequence of positive integers, such as [1, 5]")
    entries = tuple(shots)
    if not entries or not all(_is_shot_count(m) for m in entries):
        raise ValueError(f"shots={list(shots)} must be a non-empty sequence of positive integers")
    return tuple(int(m) for m in entries)


def check_allocations(
    shots: Any, num_classes: int, classes: Sequence[str] | None = None
) -> tuple[int | tuple[int, ...], ...]:
    """Shots as a tuple whose entries are one positive integer for all classes, or one for each of them.

    An entry with unequal shots is a sequence of k integers, or a dict, class -> shots; one dict alone is one entry.

    >>> check_allocations([5, [1, 2, 3], {"a": 4, "b": 4, "c": 4}], 3, ["a", "b", "c"])
    (5, (1, 2, 3), 4)
    """
    entries = [shots] if isinstance(shots, Mapping) else [] if _is_single(shots) else list(shots)
    if all(_is_single(m) for m in entries):
        return check_shots(shots)
    return tuple(_allocation(entry, num_classes, classes) for entry in entries)


def shots_by_class(shots: Sequence[int | tuple[int, ...]], num_classes: int) -> Int[np.ndarray, "m k"]:
    """Checked shots as a matrix."""
    return np.array([np.broadcast_to(entry, num_classes) for entry in shots], np.int64)


def _allocation(entry: Any, num_classes: int, classes: Sequence[str] | None) -> int | tuple[int, ...]:
    if isinstance(entry, Mapping):
        names = [str(c) for c in range(num_classes)] if classes is None else list(classes)
        given = {str(name): m for name, m in entry.items()}
        missing, unknown = [n for n in names if n not in given], [n for n in given if n not in names]
        if missing or unknown:
            problems = [f"unknown classes {unknown[:5]}"] * bool(unknown) + [f"none for {missing[:5]}"] * bool(missing)
            raise ValueError(f"shots={entry!r} must give every class its shots: {', '.join(problems)}")
        entry = [given[name] for name in names]
    values = (entry,) if _is_single(entry) else tuple(entry)
    if len(values) not in (1, num_classes) or not all(_is_shot_count(m) for m in values):
        raise ValueError(
            f"shots={entry!r} must be a positive integer, or one for each of {num_classes} classes, or a dict"
        )
    values = tuple(int(m) for m in values)
    return values[0] if len(set(values)) == 1 else values


def _is_shot_count(m: Any) -> bool:
    return _is_single(m) and not isinstance(m, str | bytes) and bool(int(m) == m and m >= 1)


def _is_single(value: Any) -> bool:
    return bool(np.isscalar(value) or getattr(value, "ndim", 1) == 0)
