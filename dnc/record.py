"""What a result file holds: everything measured of labeled features at one step, as records and as JSON.

`dnc.analyze` makes a `Record`; reports, comparisons and experiments read it. A file may leave parts out, or hold null
where nothing finite was measured: such values become nan, or arrays without entries, so that readers need one rule.
"""

import glob
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from dnc import files, names
from dnc.jsonable import numbers, plain
from dnc.task_record import CertificateRecord as CertificateRecord
from dnc.task_record import ErrorRecord as ErrorRecord
from dnc.task_record import GuaranteeRecord as GuaranteeRecord
from dnc.task_record import HardSample as HardSample
from dnc.task_record import IntervalRecord as IntervalRecord
from dnc.task_record import PairSide as PairSide
from dnc.task_record import PairView as PairView
from dnc.task_record import PredictedRecord as PredictedRecord
from dnc.task_record import TaskRecord as TaskRecord

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "dnc.analysis/1"
MATRICES = ("cdnv", "directional_cdnv")  # [k, k]
MOST_IN_JSON = 200  # classes of a task whose matrices are written as JSON: about 2 MB
_DIGITS = 12  # of SHA-256
_SUMMARY = (
    "shots",
    "error",
    "error_std",
    "predicted",
    "guaranteed",
    "exact_cantelli",
    "exact_joint",
    "exact_conditional",
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
    axes that the other task explains, mean over axes. spectrum: label-free measures. `energy[task][r]`: captured energy
    of the task in the first r principal components. left_out: images that could not be decoded and are not among the
    samples.
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
    energy: dict[str, dict[int, float]] = field(default_factory=dict)
    axes: dict[tuple[str, str], AxesRecord] = field(default_factory=dict)
    interference: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What a result file holds; nan and inf become null."""
        return {
            "schema": SCHEMA,
            **{key: getattr(self, key) for key in _SCALARS},
            "spectrum": plain(self.spectrum),
            "energy": plain(self.energy),
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "axes": {pair_key(*pair): plain(asdict(axes)) for pair, axes in self.axes.items()},
            "interference": plain(self.interference),
        }

    @classmethod
    def from_json(cls, record: Any, arrays: Mapping[str, Any] | None = None) -> "Record":
        """The inverse of `to_json`, up to what null stands for; `arrays` are those of the file beside it.

        Raises ValueError where `record` has another schema.
        """
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"schema is {schema!r}, not {SCHEMA!r}: write the file with dnc.analyze")
        try:
            tasks = {name: TaskRecord.from_json(_filled(task, arrays or {})) for name, task in record["tasks"].items()}
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
            energy = {task: _by_rank(row) for task, row in (record.get("energy") or {}).items() if task in tasks}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it does not follow {SCHEMA!r}: {type(error).__name__} {error}") from error
        scalars = {key: record.get(key) for key in _SCALARS}
        return cls(tasks, **scalars, spectrum=spectrum, energy=energy, axes=axes, interference=interference)

    def files(self, stem: str) -> dict[str, str | bytes]:
        """Names and contents of the files that hold the record: STEM.json, as `to_json`.

        Matrices over more than `MOST_IN_JSON` classes go into a file beside it, as float32, which comes first. It is
        named after its content: a file that is written anew never meets the matrices of another.
        """
        arrays, tasks = {}, dict(self.tasks)
        for index, (name, task) in enumerate(self.tasks.items()):
            if task.num_classes > MOST_IN_JSON:
                arrays |= {f"{matrix}_{index}": np.asarray(getattr(task, matrix), np.float32) for matrix in MATRICES}
                tasks[name] = replace(task, **dict.fromkeys(MATRICES, np.empty((0, 0))))
        record = replace(self, tasks=tasks).to_json()
        if not arrays:
            return {f"{stem}.json": _text(record)}
        for index, task in enumerate(record["tasks"].values()):
            task |= {key: {"array": f"{key}_{index}"} for key in MATRICES if f"{key}_{index}" in arrays}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        beside = f"{stem}.{_digest(buffer.getvalue())}.npz"
        return {beside: buffer.getvalue(), f"{stem}.json": _text(record | {"arrays": beside})}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `files` to `path` and beside it, atomically: a reader never sees half a file."""
        path = epath.Path(path)
        contents = self.files(path.stem)
        for name, content in contents.items():
            target = path if name == f"{path.stem}.json" else path.with_name(name)
            files.write_bytes(target, content.encode() if isinstance(content, str) else content)
        for old in path.parent.glob(f"{glob.escape(path.stem)}.{'[0-9a-f]' * _DIGITS}.npz"):
            if old.name not in contents:
                old.unlink(missing_ok=True)

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
                hardest=tuple(_shown_sample(sample, task.classes) for sample in task.hardest),
                left_out=_shown(task.left_out),
                views=tuple(_shown_view(view, task.classes) for view in task.views),
            )
            for name, task in self.tasks.items()
        }
        return replace(
            self,
            name=None if self.name is None else names.clean(self.name),
            tasks=tasks,
            energy={task_names[task]: row for task, row in self.energy.items() if task in task_names},
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
                if task.predicted is not None:
                    row["predicted"] = task.predicted.mean[index]
                if task.guarantee is not None:
                    row["guaranteed"] = task.guarantee.upper[index]
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
        return Record.from_json(record, _arrays(path, record))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from error


def _arrays(path: epath.Path, record: Any) -> dict[str, np.ndarray]:
    """What the file holds that the record says lies beside it."""
    name = record.get("arrays") if isinstance(record, dict) else None
    if name is None:
        return {}
    if not isinstance(name, str) or epath.Path(name).name != name:
        raise ValueError(f"arrays is {name!r}, not the name of a file beside it")
    beside = path.with_name(name)
    if not beside.is_file():
        raise ValueError(f"its matrices are in {name!r}, which is not beside it: copy both files")
    content = beside.read_bytes()
    if _digest(content) not in name:
        raise ValueError(f"{name!r} beside it is damaged or of another analysis: copy both files again")
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return dict(found)


def _filled(task: Any, arrays: Mapping[str, Any]) -> Any:
    """A task's entry with its matrices from `arrays`."""
    found = {matrix: task.get(matrix) for matrix in MATRICES}
    return {**task, **{key: arrays[value["array"]] for key, value in found.items() if isinstance(value, dict)}}


def _text(record: Any) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _by_rank(energy: Mapping[str, Any]) -> dict[int, float]:
    """Captured energy by the number of components, in their order. Raises ValueError for what is not a number."""
    return dict(sorted((int(r), value) for r, value in numbers(energy).items()))


def pair_key(first: str, second: str) -> str:
    """Two tasks as one key, "first|second"; a bar in a name is escaped, so that no two pairs share a key."""
    return "|".join(name.replace("\\", "\\\\").replace("|", "\\|") for name in (first, second))


def _pair(key: str, pairs: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    if key not in pairs:
        raise ValueError(f"axes {key!r} are not of two of its tasks")
    return pairs[key]


def _shown_classes(found: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Names of classes as `Record.shown` has them."""
    shown = dict(zip(classes, names.distinct(classes), strict=True))
    return [shown.get(name, names.clean(name)) for name in found]


def _shown_view(view: PairView, classes: Sequence[str]) -> PairView:
    sides = (view.first, view.second)
    first, second = (
        replace(side, name=name, ids=None if side.ids is None else tuple(map(names.clean, side.ids)))
        for side, name in zip(sides, _shown_classes([side.name for side in sides], classes), strict=True)
    )
    return replace(view, first=first, second=second)


def _shown_sample(sample: HardSample, classes: Sequence[str]) -> HardSample:
    label, suggested = _shown_classes([sample.label, sample.suggested], classes)
    return replace(sample, label=label, suggested=suggested, id=None if sample.id is None else names.clean(sample.id))


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(names.distinct([*values]), values.values(), strict=True))
