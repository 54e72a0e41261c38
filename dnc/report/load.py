"""Read result files into plain records: the only place of the report that knows the JSON schema.

Whatever a file leaves out, or holds as null, becomes nan or an empty array here, so that figures and tables need one
rule only: nan is drawn as nothing and printed as n/a.
"""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

SCHEMA = "dnc.analysis/1"

Number: TypeAlias = float | int | None  # as JSON holds it: null where nothing finite was measured


@dataclass(frozen=True)
class Certificate:
    """One bound (or, when `is_certificate` is false, one order or prediction) at every shot count."""

    bound: np.ndarray
    two_class: np.ndarray
    valid: np.ndarray
    is_certificate: bool
    low: np.ndarray  # of the bound's bootstrap interval, nan where none was made
    high: np.ndarray


@dataclass(frozen=True)
class Task:
    """One labeling measured at one step. Matrices are [k, k] over ordered class pairs, vectors run over shots."""

    classes: tuple[str, ...]
    cdnv: np.ndarray
    directional_cdnv: np.ndarray
    mean_cdnv: float
    mean_directional_cdnv: float
    shots: np.ndarray
    repeats: int | None
    error: np.ndarray
    error_std: np.ndarray
    error_two_class: np.ndarray
    certificates: dict[str, Certificate]
    decomposition: dict[str, np.ndarray]


@dataclass(frozen=True)
class Cosines:
    """Quantiles over pairs of decision axes of two tasks: |cos| and the valid bound on it."""

    cosine: dict[str, float]
    bound: dict[str, float]
    violations: int


@dataclass(frozen=True)
class Analysis:
    """Everything measured at one step."""

    name: str | None
    step: int | None
    epoch: float | int | None
    samples: int | None
    dimension: int | None
    normalized: bool | None
    tasks: dict[str, Task]
    axes: dict[tuple[str, str], Cosines]
    interference: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Run:
    """A training run (several analyses in the order of their steps) or a single analysis.

    seen: analyses of images that the encoder was trained on, at the same steps; empty where none were made.
    """

    name: str
    analyses: tuple[Analysis, ...]
    seen: tuple[Analysis, ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()
    config: Any = None
    environment: Any = None
    contact_sheet: bytes | None = field(default=None, repr=False)

    @property
    def first(self) -> Analysis:
        return self.analyses[0]

    @property
    def last(self) -> Analysis:
        return self.analyses[-1]

    @property
    def has_time(self) -> bool:
        return len(self.analyses) > 1

    def times(self) -> tuple[str, np.ndarray]:
        """The time axis: epochs when every analysis has one, else steps."""
        for unit in ("epoch", "step"):
            values = [getattr(analysis, unit) for analysis in self.analyses]
            if all(value is not None for value in values):
                return unit, np.array(values, float)
        return "measurement", np.arange(len(self.analyses), dtype=float)

    def series(self, task: str, attribute: str) -> np.ndarray:
        """One scalar of a task at every measured step; nan where the task was not measured."""
        return _series(self.analyses, task, attribute)

    def seen_series(self, task: str, attribute: str) -> np.ndarray:
        """The same of images that were trained on; nan at steps where they were not measured."""
        by_step = {analysis.step: analysis for analysis in self.seen}
        return _series([by_step.get(analysis.step) for analysis in self.analyses], task, attribute)


def _series(analyses: Sequence[Analysis | None], task: str, attribute: str) -> np.ndarray:
    found = [None if analysis is None else analysis.tasks.get(task) for analysis in analyses]
    return np.array([math.nan if one is None else getattr(one, attribute) for one in found], float)


def clean(text: object) -> str:
    """User text on one line, with characters that XML or a terminal would choke on replaced."""
    kept = (" " if c.isspace() else "\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Co") else c for c in str(text))
    return "".join(kept)


def load(source: str | Path | Sequence[str | Path]) -> Run:
    """Read a workdir, one analysis file, or several analysis files of one run.

    Raises:
        FileNotFoundError: nothing to read at `source`.
        ValueError: a file is not valid JSON of schema `dnc.analysis/1`, or the files share no time axis.
    """
    if not isinstance(source, (str, Path)):
        return _from_files([Path(path) for path in source])
    path = Path(source)
    if path.is_dir():
        return _from_workdir(path)
    return _from_files([path])


def _from_workdir(workdir: Path) -> Run:
    files = sorted((workdir / "measurements").glob("step_*.json"))
    if not files:
        raise FileNotFoundError(
            f"source={str(workdir)!r} has no measurements/step_*.json: train first, or pass an analysis file"
        )
    run = _from_files(files)
    seen = sorted((workdir / "measurements" / "train").glob("step_*.json"))
    sheet = workdir / "images" / "contact_sheet.png"
    return Run(
        name=run.last.name or clean(workdir.resolve().name),
        analyses=run.analyses,
        seen=_from_files(seen).analyses if seen else (),
        training=_json_lines(workdir / "metrics.jsonl"),
        config=_optional_json(workdir / "config.json"),
        environment=_optional_json(workdir / "environment.json"),
        contact_sheet=sheet.read_bytes() if sheet.is_file() else None,
    )


def _from_files(files: Sequence[Path]) -> Run:
    if not files:
        raise ValueError("source=[] names no analysis file: pass at least one")
    analyses = [_analysis(path) for path in files]
    if len(analyses) > 1:
        steps = [analysis.step for analysis in analyses]
        if None in steps or len(set(steps)) < len(steps):
            raise ValueError(
                f"source holds {len(steps)} analyses with steps {steps}: a report needs one distinct step each; "
                "write one report per file instead"
            )
        analyses.sort(key=lambda analysis: analysis.step or 0)
    return Run(name=analyses[-1].name or clean(files[-1].stem), analyses=tuple(analyses))


def _analysis(path: Path) -> Analysis:
    if not path.is_file():
        raise FileNotFoundError(f"no analysis file at {str(path)!r}")
    record = _read_json(path)
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"{str(path)!r} has schema {schema!r}, expected {SCHEMA!r}: write it with dnc.analyze")
    try:
        return _parse_analysis(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} does not follow {SCHEMA!r}: {type(error).__name__} {error}") from error


def _parse_analysis(record: Mapping[str, Any]) -> Analysis:
    tasks = {clean(name): parse_task(task) for name, task in record["tasks"].items()}
    if not tasks:
        raise ValueError("it holds no task")
    axes = {}
    for pair, values in (record.get("axes") or {}).items():
        first, _, second = pair.partition("|")
        axes[clean(first), clean(second)] = Cosines(
            cosine=_scalars(values.get("cosine")),
            bound=_scalars(values.get("bound")),
            violations=int(values.get("violations") or 0),
        )
    interference = {clean(task): _scalars(row) for task, row in (record.get("interference") or {}).items()}
    name = record.get("name")
    return Analysis(
        name=None if name is None else clean(name),
        step=record.get("step"),
        epoch=record.get("epoch"),
        samples=record.get("samples"),
        dimension=record.get("dimension"),
        normalized=record.get("normalized"),
        tasks=tasks,
        axes=axes,
        interference=interference,
    )


def parse_task(task: Mapping[str, Any]) -> Task:
    """A task's entry of an analysis file."""
    classes = tuple(clean(name) for name in task["classes"])
    k = len(classes)
    shots = _vector(task.get("shots"))
    m = shots.size
    summary, error = task.get("summary") or {}, task.get("error") or {}
    intervals = task.get("intervals") or {}
    certificates = {
        clean(name): Certificate(
            bound=_vector(c.get("bound"), m),
            two_class=_vector(c.get("two_class"), m),
            valid=np.nan_to_num(_vector(c.get("valid"), m)).astype(bool),
            is_certificate=bool(c.get("is_certificate")),
            low=_vector(intervals.get(name, {}).get("low"), m),
            high=_vector(intervals.get(name, {}).get("high"), m),
        )
        for name, c in (task.get("certificates") or {}).items()
    }
    split = {clean(part): np.array(values, float) for part, values in (task.get("decomposition") or {}).items()}
    return Task(
        classes=classes,
        cdnv=_matrix(task.get("cdnv"), k),
        directional_cdnv=_matrix(task.get("directional_cdnv"), k),
        mean_cdnv=_scalar(summary.get("cdnv")),
        mean_directional_cdnv=_scalar(summary.get("directional_cdnv")),
        shots=shots,
        repeats=task.get("repeats"),
        error=_vector(error.get("mean"), m),
        error_std=_vector(error.get("std"), m),
        error_two_class=_vector(error.get("two_class"), m),
        certificates=certificates,
        decomposition=split,
    )


def _scalar(value: Number) -> float:
    return math.nan if value is None else float(value)


def _scalars(values: Mapping[str, Number] | None) -> dict[str, float]:
    return {clean(name): _scalar(value) for name, value in (values or {}).items()}


def _vector(values: Sequence[Number] | None, size: int | None = None) -> np.ndarray:
    if values is None:
        return np.full(size or 0, math.nan)
    vector = np.array(values, float)
    if size is not None and vector.shape != (size,):
        raise ValueError(f"expected {size} values, one a shot count, found shape {vector.shape}")
    return vector


def _matrix(values: Sequence[Sequence[Number]] | None, k: int) -> np.ndarray:
    matrix = np.full((k, k), math.nan) if values is None else np.array(values, float)
    if matrix.shape != (k, k):
        raise ValueError(f"expected a {k} x {k} matrix of class pairs, found shape {matrix.shape}")
    return matrix


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON ({error}): measure again") from error


def _optional_json(path: Path) -> Any:
    return _read_json(path) if path.is_file() else None


def _json_lines(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Lines of a log that a killed process may have cut short: a last, unfinished line is skipped."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{str(path)!r}, line {number}, is not valid JSON ({error})") from error
        if isinstance(record, dict):
            records.append(record)
    return tuple(records)
