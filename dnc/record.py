"""What a result file holds: everything measured of labeled features at one step, as records and as JSON.

`dnc.analyze` makes a `Record`; reports, comparisons and experiments read it. A file may leave parts out, or hold null
where nothing finite was measured: such values become nan, or arrays without entries, so that readers need one rule.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from dnc import files, names
from dnc.jsonable import array, number, numbers, plain, whole
from dnc.types import Bool, Float, Int

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "dnc.analysis/1"
_FEW_SAMPLES = 1.2  # a bias of the sample's size, as a factor, from which on a measure carries a warning
_SUMMARY = ("shots", "error", "error_std", "luthra2026", "exact_cantelli", "exact_joint", "exact_conditional")


@dataclass(frozen=True)
class CertificateRecord:
    """One bound at every number of shots; where `is_certificate` is false, an order of magnitude or a prediction."""

    bound: Float[np.ndarray, " m"]  # mean over classes
    two_class: Float[np.ndarray, " m"]  # mean over two-class subtasks
    per_class: Float[np.ndarray, "m k"]
    is_certificate: bool
    valid: Bool[np.ndarray, " m"]  # the number of shots lies within the theorem's assumptions


@dataclass(frozen=True)
class ErrorRecord:
    """Measured few-shot error: mean and standard deviation over draws, and the mean over two-class subtasks."""

    mean: Float[np.ndarray, " m"]
    std: Float[np.ndarray, " m"]
    per_class: Float[np.ndarray, "m k"]
    two_class: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class IntervalRecord:
    """A 95% confidence interval, for the population, of a number, or of one at every number of shots."""

    low: Float[np.ndarray, "*shape"]
    high: Float[np.ndarray, "*shape"]


@dataclass(frozen=True)
class TaskRecord:
    """One labeling. Matrices [k, k] are over ordered pairs of classes, with nan on the diagonal."""

    classes: tuple[str, ...]
    cdnv: Float[np.ndarray, "k k"]
    directional_cdnv: Float[np.ndarray, "k k"]
    mean_cdnv: float
    mean_directional_cdnv: float
    shots: Int[np.ndarray, " m"]
    repeats: int | None
    error: ErrorRecord
    certificates: dict[str, CertificateRecord]
    counts: np.ndarray | None = None  # [k]
    overlap: str | None = None  # what certificates took for tr(Sigma_i Sigma_j), see `dnc.geometry.pairs.MarginTerms`
    missing: dict[str, str] = field(default_factory=dict)  # certificates that were left out, and why
    corrected: dict[str, float] = field(default_factory=dict)  # mean cdnv and directional_cdnv for the population, over
    # the pairs that can be told apart; `undecided`: the share of the others
    neural_collapse: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, IntervalRecord] = field(default_factory=dict)  # of means over pairs and of bounds, by name
    decomposition: dict[str, np.ndarray] = field(default_factory=dict)  # see `dnc.geometry.decomposition`

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the numbers are used: too few samples, looser certificates, missing ones."""
        found = []
        named = {"CDNV": ("cdnv", self.mean_cdnv), "directional CDNV": ("directional_cdnv", self.mean_directional_cdnv)}
        better = {title: (value, self.corrected.get(key, math.nan)) for title, (key, value) in named.items()}
        off = [
            f"{title} {value:.3g} of the sample is {corrected:.3g} once corrected"
            for title, (value, corrected) in better.items()
            if corrected > 0 and value < math.inf and not 1 / _FEW_SAMPLES < value / corrected < _FEW_SAMPLES
        ]
        if undecided := self.corrected.get("undecided"):
            found.append(f"these samples cannot tell the class means of {undecided:.0%} of the pairs apart")
        if off:
            smallest = "" if self.counts is None else f", {self.counts.min():g} in the smallest class"
            found.append(f"few samples for the dimension{smallest}: {', '.join(off)}")
        if self.overlap not in (None, "exact"):
            found.append(f"certificates use an upper bound of tr(Sigma_i Sigma_j): {self.overlap}")
        return (*found, *(f"{name} is left out: {reason}" for name, reason in self.missing.items()))

    def to_json(self) -> dict[str, Any]:
        """The task's entry of a result file."""
        return {
            "classes": list(self.classes),
            "counts": plain(self.counts),
            "overlap": self.overlap,
            "missing": self.missing,
            "corrected": plain(self.corrected),
            "warnings": list(self.warnings),
            "cdnv": plain(self.cdnv),
            "directional_cdnv": plain(self.directional_cdnv),
            "summary": plain({"cdnv": self.mean_cdnv, "directional_cdnv": self.mean_directional_cdnv}),
            "shots": plain(self.shots),
            "repeats": self.repeats,
            "error": plain(asdict(self.error)),
            "certificates": plain({name: asdict(value) for name, value in self.certificates.items()}),
            "neural_collapse": plain(self.neural_collapse),
            "intervals": plain({name: asdict(value) for name, value in self.intervals.items()}),
            "decomposition": plain(self.decomposition),
        }

    @classmethod
    def from_json(cls, task: Mapping[str, Any]) -> "TaskRecord":
        """Raises KeyError, TypeError or ValueError where the entry does not follow the schema."""
        k, shots = len(task["classes"]), array(task.get("shots"), (None,))
        m = len(shots)
        summary, error = task.get("summary") or {}, task.get("error") or {}
        vector, by_class = (m,), (m, k)
        certificates = {
            name: CertificateRecord(
                bound=array(values.get("bound"), vector),
                two_class=array(values.get("two_class"), vector),
                per_class=array(values.get("per_class"), by_class),
                is_certificate=bool(values.get("is_certificate")),
                valid=np.nan_to_num(array(values.get("valid"), vector)).astype(bool),
            )
            for name, values in (task.get("certificates") or {}).items()
        }
        intervals = {
            name: IntervalRecord(*(np.array(values.get(side), float) for side in ("low", "high")))
            for name, values in (task.get("intervals") or {}).items()
        }
        return cls(
            classes=tuple(task["classes"]),
            cdnv=array(task.get("cdnv"), (k, k)),
            directional_cdnv=array(task.get("directional_cdnv"), (k, k)),
            mean_cdnv=number(summary.get("cdnv")),
            mean_directional_cdnv=number(summary.get("directional_cdnv")),
            shots=shots.astype(int),
            repeats=task.get("repeats"),
            error=ErrorRecord(
                mean=array(error.get("mean"), vector),
                std=array(error.get("std"), vector),
                per_class=array(error.get("per_class"), by_class),
                two_class=array(error.get("two_class"), vector),
            ),
            certificates=certificates,
            counts=whole(array(task.get("counts"), (k,))),
            overlap=task.get("overlap"),
            missing=dict(task.get("missing") or {}),
            corrected=numbers(task.get("corrected")),
            neural_collapse=numbers(task.get("neural_collapse")),
            intervals=intervals,
            decomposition={
                part: whole(np.array(values, float)) if part == "pairs" else np.array(values, float)
                for part, values in (task.get("decomposition") or {}).items()
            },
        )


@dataclass(frozen=True)
class AxesRecord:
    """Quantiles over pairs of decision axes of two tasks: |cos|, and the valid bound on it; cosines above theirs."""

    cosine: dict[str, float]
    bound: dict[str, float]
    violations: int


@dataclass(frozen=True)
class Record:
    """Everything measured at one step.

    axes: for each two tasks. `interference[task][other]`: the share of the within-class variance on the task's decision
    axes that the other task explains, mean over axes. spectrum: label-free measures. left_out: images that could not be
    decoded and are not among the samples.
    """

    tasks: dict[str, TaskRecord]
    name: str | None = None
    step: int | None = None
    epoch: float | None = None
    samples: int | None = None
    dimension: int | None = None
    normalized: bool | None = None
    seed: int | None = None
    left_out: int | None = None
    spectrum: dict[str, float] = field(default_factory=dict)
    axes: dict[tuple[str, str], AxesRecord] = field(default_factory=dict)
    interference: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What a result file holds; nan and inf become null."""
        return {
            "schema": SCHEMA,
            **{key: getattr(self, key) for key in _SCALARS},
            "spectrum": plain(self.spectrum),
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "axes": {pair_key(*pair): plain(asdict(axes)) for pair, axes in self.axes.items()},
            "interference": plain(self.interference),
        }

    @classmethod
    def from_json(cls, record: Any) -> "Record":
        """The inverse of `to_json`, up to what null stands for. Raises ValueError where `record` has another schema."""
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"schema is {schema!r}, not {SCHEMA!r}: write the file with dnc.analyze")
        try:
            tasks = {name: TaskRecord.from_json(task) for name, task in record["tasks"].items()}
            if not tasks:
                raise ValueError("it holds no task")
            pairs = {key(*pair): pair for key in ("{}|{}".format, pair_key) for pair in permutations(tasks, 2)}
            axes = {
                _pair(key, pairs): AxesRecord(
                    numbers(values.get("cosine")), numbers(values.get("bound")), int(values.get("violations") or 0)
                )
                for key, values in (record.get("axes") or {}).items()
            }
            interference = {task: numbers(row) for task, row in (record.get("interference") or {}).items()}
            spectrum = numbers(record.get("spectrum"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it does not follow {SCHEMA!r}: {type(error).__name__} {error}") from error
        scalars = {key: record.get(key) for key in _SCALARS}
        return cls(tasks, **scalars, spectrum=spectrum, axes=axes, interference=interference)

    def dumps(self) -> str:
        """`to_json` as the text of a file."""
        return json.dumps(self.to_json(), allow_nan=False) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json`, atomically: a reader never sees half a file."""
        files.write_text(path, self.dumps())

    def shown(self) -> "Record":
        """The same with every name (of the record, its tasks, their classes and certificates) fit to be shown."""
        task_names = dict(zip(self.tasks, names.distinct([*self.tasks]), strict=True))
        tasks = {
            task_names[name]: replace(
                task,
                classes=tuple(names.distinct(task.classes)),
                certificates=_shown(task.certificates),
                intervals=_shown(task.intervals),
                decomposition=_shown(task.decomposition),
            )
            for name, task in self.tasks.items()
        }
        return replace(
            self,
            name=None if self.name is None else names.clean(self.name),
            tasks=tasks,
            axes={(task_names[first], task_names[second]): axes for (first, second), axes in self.axes.items()},
            interference={
                task_names[task]: {task_names.get(other, names.clean(other)): share for other, share in row.items()}
                for task, row in self.interference.items()
                if task in task_names
            },
        )

    def to_pandas(self) -> "pd.DataFrame":
        """One row per task and number of shots: collapse, measured error and every bound."""
        import pandas as pd

        rows = []
        for name, task in self.tasks.items():
            constant = {"mean_cdnv": task.mean_cdnv, "mean_directional_cdnv": task.mean_directional_cdnv}
            constant |= {"nc1": task.neural_collapse.get("within_class_variability", math.nan), **self.spectrum}
            for index, m in enumerate(task.shots.tolist()):
                row = {"task": name, "shots": m, "repeats": task.repeats, **constant}
                row |= {"error": task.error.mean[index], "error_std": task.error.std[index]}
                rows.append(row | {key: value.bound[index] for key, value in task.certificates.items()})
        return pd.DataFrame(rows)

    def summary(self) -> str:
        """A plain-text table: collapse, measured error and the main certificates of every labeling."""
        shown = self.shown()
        lines = [f"note: {self.left_out} images could not be decoded and were left out"] if self.left_out else []
        table = shown.to_pandas()
        for name, task in shown.tasks.items():
            rows = table.loc[table["task"] == name]
            lines.append(
                f"{name}: {task.num_classes} classes, CDNV {task.mean_cdnv:.4g}, "
                f"directional CDNV {task.mean_directional_cdnv:.4g}"
            )
            shown = rows.loc[:, [column for column in _SUMMARY if column in rows]]
            lines += [f"  note: {warning}" for warning in task.warnings]
            lines.append(shown.to_string(index=False, float_format="%.4f"))
        return "\n".join(lines)


_SCALARS = ("name", "step", "epoch", "samples", "dimension", "normalized", "seed", "left_out")


def load(path: str | os.PathLike[str]) -> Record:
    """Read a result file. Raises FileNotFoundError, or ValueError naming a file that does not follow the schema."""
    path = epath.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no analysis file at {os.fspath(path)!r}")
    record = files.read_json(path)
    try:
        return Record.from_json(record)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from error


def pair_key(first: str, second: str) -> str:
    """Two tasks as one key, "first|second"; a bar in a name is escaped, so that no two pairs share a key."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in (first, second))


def _pair(key: str, pairs: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    if key not in pairs:
        raise ValueError(f"axes {key!r} are not of two of its tasks")
    return pairs[key]


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(names.distinct([*values]), values.values(), strict=True))
