"""What a result file holds: everything measured of labeled features at one step, as records and as JSON.

`dnc.analyze` makes a `Record`; reports, comparisons and experiments read it. A file may leave parts out, or hold null
where nothing finite was measured: such values become nan, or arrays without entries, so that readers need one rule.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from dnc import files
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
            if corrected > 0 and not 1 / _FEW_SAMPLES < value / corrected < _FEW_SAMPLES
        ]
        if undecided := self.corrected.get("undecided"):
            off.append(f"the means of {undecided:.0%} of the pairs cannot be told apart")
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
        k, shots = len(task["classes"]), _array(task.get("shots"), (None,))
        m = len(shots)
        summary, error = task.get("summary") or {}, task.get("error") or {}
        vector, by_class = (m,), (m, k)
        certificates = {
            name: CertificateRecord(
                bound=_array(values.get("bound"), vector),
                two_class=_array(values.get("two_class"), vector),
                per_class=_array(values.get("per_class"), by_class),
                is_certificate=bool(values.get("is_certificate")),
                valid=np.nan_to_num(_array(values.get("valid"), vector)).astype(bool),
            )
            for name, values in (task.get("certificates") or {}).items()
        }
        intervals = {
            name: IntervalRecord(*(np.array(values.get(side), float) for side in ("low", "high")))
            for name, values in (task.get("intervals") or {}).items()
        }
        return cls(
            classes=tuple(task["classes"]),
            cdnv=_array(task.get("cdnv"), (k, k)),
            directional_cdnv=_array(task.get("directional_cdnv"), (k, k)),
            mean_cdnv=_number(summary.get("cdnv")),
            mean_directional_cdnv=_number(summary.get("directional_cdnv")),
            shots=shots.astype(int),
            repeats=task.get("repeats"),
            error=ErrorRecord(
                mean=_array(error.get("mean"), vector),
                std=_array(error.get("std"), vector),
                per_class=_array(error.get("per_class"), by_class),
                two_class=_array(error.get("two_class"), vector),
            ),
            certificates=certificates,
            counts=_whole(_array(task.get("counts"), (k,))),
            overlap=task.get("overlap"),
            missing=dict(task.get("missing") or {}),
            corrected=_numbers(task.get("corrected")),
            neural_collapse=_numbers(task.get("neural_collapse")),
            intervals=intervals,
            decomposition={
                part: _whole(np.array(values, float)) if part == "pairs" else np.array(values, float)
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
    axes that the other task explains, mean over axes. spectrum: label-free measures.
    """

    tasks: dict[str, TaskRecord]
    name: str | None = None
    step: int | None = None
    epoch: float | None = None
    samples: int | None = None
    dimension: int | None = None
    normalized: bool | None = None
    seed: int | None = None
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
            "axes": {"|".join(pair): plain(asdict(axes)) for pair, axes in self.axes.items()},
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
            axes = {
                _pair(key, tasks): AxesRecord(
                    _numbers(values.get("cosine")), _numbers(values.get("bound")), int(values.get("violations") or 0)
                )
                for key, values in (record.get("axes") or {}).items()
            }
            interference = {task: _numbers(row) for task, row in (record.get("interference") or {}).items()}
            spectrum = _numbers(record.get("spectrum"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it does not follow {SCHEMA!r}: {type(error).__name__} {error}") from error
        scalars = {key: record.get(key) for key in _SCALARS}
        return cls(tasks, **scalars, spectrum=spectrum, axes=axes, interference=interference)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json`, atomically: a reader never sees half a file."""
        files.write_json(path, self.to_json(), indent=None)

    def renamed(self, rename: Callable[[str], str]) -> "Record":
        """The same with every name (of the record, its tasks, their classes and certificates) put through `rename`."""
        tasks = {
            rename(name): replace(
                task,
                classes=tuple(map(rename, task.classes)),
                certificates={rename(key): value for key, value in task.certificates.items()},
                intervals={rename(key): value for key, value in task.intervals.items()},
                decomposition={rename(key): value for key, value in task.decomposition.items()},
            )
            for name, task in self.tasks.items()
        }
        return replace(
            self,
            name=None if self.name is None else rename(self.name),
            tasks=tasks,
            axes={(rename(first), rename(second)): axes for (first, second), axes in self.axes.items()},
            interference={
                rename(task): {rename(other): share for other, share in row.items()}
                for task, row in self.interference.items()
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
        table, lines = self.to_pandas(), []
        for name, task in self.tasks.items():
            rows = table.loc[table["task"] == name]
            lines.append(
                f"{name}: {task.num_classes} classes, CDNV {task.mean_cdnv:.4g}, "
                f"directional CDNV {task.mean_directional_cdnv:.4g}"
            )
            shown = rows.loc[:, [column for column in _SUMMARY if column in rows]]
            lines += [f"  note: {warning}" for warning in task.warnings]
            lines.append(shown.to_string(index=False, float_format="%.4f"))
        return "\n".join(lines)


_SCALARS = ("name", "step", "epoch", "samples", "dimension", "normalized", "seed")


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


def _pair(key: str, tasks: Mapping[str, Any]) -> tuple[str, str]:
    """The two tasks of an entry "first|second"; names may hold the bar themselves."""
    pairs = [(key[:cut], key[cut + 1 :]) for cut, letter in enumerate(key) if letter == "|"]
    for first, second in pairs:
        if first in tasks and second in tasks:
            return first, second
    raise ValueError(f"axes {key!r} are not of two of its tasks")


def _whole(values: np.ndarray) -> np.ndarray:
    """Integers, unless one is missing."""
    return values.astype(int) if np.isfinite(values).all() else values


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _numbers(values: Mapping[str, float | None] | None) -> dict[str, float]:
    return {name: _number(value) for name, value in (values or {}).items()}


def _array(values: Sequence[Any] | None, shape: tuple[int | None, ...]) -> np.ndarray:
    """Numbers as float64, null as nan; all nan where `values` is missing. None in `shape` stands for any size."""
    if values is None:
        return np.full([size or 0 for size in shape], math.nan)
    array = np.array(values, float)
    if array.ndim != len(shape) or any(size not in (None, n) for size, n in zip(shape, array.shape, strict=True)):
        raise ValueError(f"expected numbers of shape {shape}, found shape {array.shape}")
    return array
