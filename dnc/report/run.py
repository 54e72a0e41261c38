"""What a report is made of: the records of a run, and what its folder holds beside them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dnc import files, names, record
from dnc.record import Record
from dnc.report.thumbnails import Thumbnails, load_sheets


@dataclass(frozen=True)
class Run:
    """A training run (several records in the order of their steps) or a single record.

    trained_on: records of images that the encoder was trained on, at the same steps; empty where none were made.
    thumbnails: pictures of the last record's hardest samples, where there are any.
    provenance: lines of "How it was made", such as the date.
    """

    name: str
    records: tuple[Record, ...]
    trained_on: tuple[Record, ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()
    config: Any = None
    environment: Any = None
    contact_sheet: bytes | None = field(default=None, repr=False)
    thumbnails: Thumbnails = field(default_factory=dict, repr=False)
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def has_time(self) -> bool:
        return len(self.records) > 1

    def times(self) -> tuple[str, np.ndarray]:
        """The time axis: epochs when every record has one, else steps."""
        for unit in ("epoch", "step"):
            values = [getattr(record, unit) for record in self.records]
            if all(value is not None for value in values):
                return unit, np.array(values, float)
        return "measurement", np.arange(len(self.records), dtype=float)

    def series(self, task: str, attribute: str) -> np.ndarray:
        """One scalar of a task at every measured step; nan where the task was not measured."""
        return _series(self.records, task, attribute)

    def trained_on_series(self, task: str, attribute: str) -> np.ndarray:
        """The same of images that were trained on; nan at steps where they were not measured."""
        by_step = {record.step: record for record in self.trained_on}
        return _series([by_step.get(record.step) for record in self.records], task, attribute)


def _series(records: Sequence[Record | None], task: str, attribute: str) -> np.ndarray:
    tasks = [None if measured is None else measured.tasks.get(task) for measured in records]
    return np.array([math.nan if measured is None else getattr(measured, attribute) for measured in tasks], float)


def run_of(
    records: Sequence[Record],
    name: str,
    provenance: Mapping[str, str] | None = None,
    thumbnails: Thumbnails | None = None,
) -> Run:
    """The run of these records, in the order of their steps; `name` where they have none. Names are made clean.

    Raises ValueError for several records without distinct steps.
    """
    if not records:
        raise ValueError("a report needs at least one record")
    if len(records) > 1:
        steps = [measured.step for measured in records]
        if None in steps or len(set(steps)) < len(steps):
            raise ValueError(
                f"source holds {len(steps)} analyses with steps {steps}: a report needs one distinct step each; "
                "write one report per file instead"
            )
        records = sorted(records, key=lambda measured: measured.step or 0)
    named = tuple(measured.shown() for measured in records)
    title = named[-1].name or names.clean(name)
    return Run(name=title, records=named, thumbnails=thumbnails or {}, provenance=provenance or {})


def load(source: str | Path | Sequence[str | Path]) -> Run:
    """Read a workdir, one analysis file, or several analysis files of one run.

    Raises:
        FileNotFoundError: nothing to read at `source`.
        ValueError: a file is not valid JSON of schema `dnc.analysis/1`, or the files share no time axis.
    """
    if not isinstance(source, (str, Path)):
        return _from_files([Path(path) for path in source])
    path = Path(source)
    return _from_workdir(path) if path.is_dir() else _from_files([path])


def _from_files(paths: Sequence[Path]) -> Run:
    if not paths:
        raise ValueError("source=[] names no analysis file: pass at least one")
    return run_of([record.load(path) for path in paths], paths[-1].stem, _measured(paths))


def _from_workdir(workdir: Path) -> Run:
    paths = sorted((workdir / "measurements").glob("step_*.json"))
    if not paths:
        raise FileNotFoundError(
            f"source={str(workdir)!r} has no measurements/step_*.json: train first, or pass an analysis file"
        )
    run = run_of([record.load(path) for path in paths], workdir.resolve().name, _measured(paths))
    trained_on = sorted((workdir / "measurements" / "train").glob("step_*.json"))
    sheet = workdir / "images" / "contact_sheet.png"
    return Run(
        name=run.name,
        records=run.records,
        trained_on=_from_files(trained_on).records if trained_on else (),
        training=_json_lines(workdir / "metrics.jsonl"),
        config=_without_folders(_optional_json(workdir / "config.json")),
        environment=_without_folders(_optional_json(workdir / "environment.json")),
        contact_sheet=sheet.read_bytes() if sheet.is_file() else None,
        thumbnails=load_sheets(record.load(paths[-1]), workdir / "images"),
        provenance=run.provenance,
    )


def _measured(paths: Sequence[Path]) -> dict[str, str]:
    """When the newest of the files was written."""
    newest = datetime.fromtimestamp(max(path.stat().st_mtime for path in paths), UTC)
    return {"measured": f"{newest:%Y-%m-%d %H:%M} UTC"}


def _without_folders(value: Any) -> Any:
    """JSON whose absolute paths, which are nobody's business on a page, have become names."""
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return f"…/{Path(value).name}" if isinstance(value, str) and value.startswith(("/", "~/")) else value


def _optional_json(path: Path) -> Any:
    return files.read_json(path) if path.is_file() else None


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
