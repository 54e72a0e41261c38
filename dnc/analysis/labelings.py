"""The labelings of an analysis: checked, encoded, and without classes that are too small."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnc.geometry import validation
from dnc.geometry.shots import check_shots
from dnc.types import Bool, Int

DEFAULT_SHOTS = (1, 5, 10, 20, 50, 100)


@dataclasses.dataclass(frozen=True)
class Labeling:
    """Class numbers 0..k-1 of the samples, the classes' names, and those left out, with how many samples they had."""

    title: str  # of the argument, for errors
    codes: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def encode(
    labels: Any,
    samples: int,
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None,
    superclasses: Mapping[str, Any] | None,
    least_samples: int,
) -> tuple[dict[str, Labeling], Bool[np.ndarray, " n"]]:
    """Every labeling by name, `superclass` among them where it is asked for, and which samples are kept.

    Raises what `dnc.analyze` raises.
    """
    given = dict(labels) if isinstance(labels, Mapping) else {"labels": labels}
    if not given:
        raise ValueError("labels is an empty dict: give at least one labeling")
    named = class_names if isinstance(class_names, Mapping) else dict.fromkeys(given, class_names)
    if unknown := sorted(set(named) - set(given)):
        raise ValueError(f"class_names name labelings {unknown}, but labels has {list(given)}")
    labelings = {}
    for task, values in given.items():
        title = f"labels[{task!r}]" if isinstance(labels, Mapping) else "labels"
        codes, classes = validation.encode_labels(values, named.get(task), title)
        validation.check_same_length(samples, len(codes), title)
        labelings[task] = Labeling(title, codes, tuple(classes))
    if superclasses is not None:
        if len(labelings) > 1:
            raise ValueError(f"superclasses goes with one labeling, but labels has {list(labelings)}")
        (labeling,) = labelings.values()
        labelings["superclass"] = _coarse(superclasses, labeling)
    kept = np.ones(samples, bool)
    if least_samples > 2:
        labelings, kept = _without_small_classes(labelings, least_samples)
    for labeling in labelings.values():
        validation.check_classes(labeling.codes, labeling.classes, name=labeling.title)
    return labelings, kept


def _without_small_classes(
    labelings: Mapping[str, Labeling], least: int
) -> tuple[dict[str, Labeling], Bool[np.ndarray, " n"]]:
    """The labelings of the samples whose classes have at least `least` samples in each, and which samples these are.

    Raises ValueError where fewer than two classes of a labeling are left.
    """
    kept = np.ones(len(next(iter(labelings.values())).codes), bool)
    while True:  # leaving a class of one labeling out makes those of another smaller
        small = [
            (np.bincount(labeling.codes[kept], minlength=len(labeling.classes)) < least)[labeling.codes] & kept
            for labeling in labelings.values()
        ]
        if not np.any(small):
            break
        kept &= ~np.any(small, axis=0)
    remaining = {}
    for task, labeling in labelings.items():
        before = np.bincount(labeling.codes, minlength=len(labeling.classes))
        after = np.bincount(labeling.codes[kept], minlength=len(labeling.classes))
        used = np.flatnonzero(after)
        if len(used) < 2:
            raise ValueError(
                f"{len(used)} classes of {labeling.title} have at least {least} samples, and two are needed: lower "
                f"least_samples={least}; the largest have {sorted(before.tolist(), reverse=True)[:5]}"
            )
        number = np.cumsum(after > 0) - 1
        gone = {labeling.classes[c]: int(before[c]) for c in np.flatnonzero(after == 0)}
        classes = tuple(labeling.classes[c] for c in used)
        remaining[task] = Labeling(labeling.title, number[labeling.codes[kept]].astype(np.int32), classes, gone)
    return remaining, kept


def fitting_shots(shots: Sequence[int] | None, labeling: Labeling) -> tuple[int, ...]:
    """The shots, or those of `DEFAULT_SHOTS` that leave every class a query. Raises ValueError for too many."""
    counts = np.bincount(labeling.codes)
    smallest = int(counts.argmin())
    if shots is None:
        return tuple(m for m in DEFAULT_SHOTS if m < counts[smallest])
    checked = check_shots(shots)
    if (most := max(checked)) >= counts[smallest]:
        raise ValueError(
            f"shots={most} needs {most + 1} samples of every class, but class {labeling.classes[smallest]!r} of "
            f"{labeling.title} has {counts[smallest]}: use fewer shots, add samples, or leave small classes out with "
            f"least_samples={most + 1}"
        )
    return checked


def _coarse(superclasses: Mapping[str, Any], labeling: Labeling) -> Labeling:
    missing = [name for name in labeling.classes if name not in superclasses]
    if missing:
        raise ValueError(f"superclasses has no entry for classes {missing[:5]}: map every class name to a superclass")
    values = [str(superclasses[labeling.classes[int(code)]]) for code in labeling.codes]
    codes, classes = validation.encode_labels(values, None, "superclasses")
    return Labeling("superclasses", codes, tuple(classes))
