"""The report's numbers as one tidy long table: a row per number, the same rows as JSON and as CSV."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsFloat

from dnc.record import Record, TaskRecord, pair_key
from dnc.report.run import Run

COLUMNS = ("step", "epoch", "task", "quantity", "name", "shots", "value")
MOST_CLASSES = 32  # class pairs of larger tasks stay in the measurement files: they would be all of the table
_FORMULA = tuple("=+-@＝＋－＠")  # a cell's first character, in either width


def records(run: Run) -> list[dict[str, Any]]:
    """Every number that the report draws; class pairs only for the last step and up to `MOST_CLASSES` classes."""
    rows = []
    for analysis in run.records:
        for row in _analysis_rows(analysis, pairs=analysis is run.last):
            rows.append(_record(analysis, *row))
    for analysis in run.trained_on:
        for name, task in analysis.tasks.items():
            rows.append(_record(analysis, name, "train_cdnv", "mean", None, task.mean_cdnv))
            rows.append(_record(analysis, name, "train_directional_cdnv", "mean", None, task.mean_directional_cdnv))
    return rows


def _record(
    analysis: Record, task: str, quantity: str, name: str | None, shots: int | None, value: SupportsFloat
) -> dict[str, Any]:
    number = float(value)
    cells = (analysis.step, analysis.epoch, task, quantity, name, shots, number if math.isfinite(number) else None)
    return dict(zip(COLUMNS, cells, strict=True))


def to_json(run: Run, headline: str, rows: list[dict[str, Any]]) -> str:
    document = {"schema": "dnc.report/1", "name": run.name, "headline": headline, "records": rows}
    return json.dumps(document, ensure_ascii=False, indent=0) + "\n"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Missing values are empty cells; a name that a spreadsheet would compute as a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list[str](COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.lstrip()[:1] in _FORMULA else value


_Row = tuple[str, str, str | None, int | None, float]


def _analysis_rows(analysis: Record, pairs: bool) -> Iterator[_Row]:
    for name, task in analysis.tasks.items():
        yield from _task_rows(name, task)
        if pairs and task.num_classes <= MOST_CLASSES:
            yield from _pair_rows(name, task)
    for (first, second), axes in analysis.axes.items():
        for quantity, values in (("cosine", axes.cosine), ("cosine_bound", axes.bound)):
            for quantile, value in values.items():
                yield pair_key(first, second), quantity, quantile, None, value
        yield pair_key(first, second), "cosine_violations", None, None, axes.violations
    for name, shares in analysis.interference.items():
        for other, share in shares.items():
            yield name, "interference", other, None, share


def _task_rows(name: str, task: TaskRecord) -> Iterator[_Row]:
    yield name, "cdnv", "mean", None, task.mean_cdnv
    yield name, "directional_cdnv", "mean", None, task.mean_directional_cdnv
    for index, m in enumerate(task.shots):
        yield name, "error", "mean", int(m), task.error.mean[index]
        yield name, "error", "std", int(m), task.error.std[index]
        yield name, "error_two_class", "mean", int(m), task.error.two_class[index]
        for key, certificate in task.certificates.items():
            quantity = "certificate" if certificate.is_certificate else "not_a_certificate"
            yield name, quantity, key, int(m), certificate.bound[index]
            yield name, f"{quantity}_two_class", key, int(m), certificate.two_class[index]
    if (predicted := task.predicted) is not None:
        for m, error in zip(predicted.curve_shots, predicted.curve, strict=True):
            yield name, "predicted", "mean", int(m), error
        for m, error in zip(task.shots, predicted.two_class, strict=True):
            yield name, "predicted_two_class", "mean", int(m), error
        yield name, "predicted", "limit", None, predicted.limit
        for target, shots in predicted.shots_needed.items():
            yield name, "shots_needed", target, None, shots
    if task.guarantee is not None:
        for m, upper in zip(task.shots, task.guarantee.upper, strict=True):
            yield name, "guarantee", f"{task.guarantee.confidence:g}", int(m), upper
    for view in task.views:
        yield name, "pair_error", f"{view.first.name} | {view.second.name}", None, view.error
    for part, values in task.decomposition.items():
        if part != "pairs" and values.size:
            yield name, "variance", part, None, values.mean()


def _pair_rows(name: str, task: TaskRecord) -> Iterator[_Row]:
    for i, of in enumerate(task.classes):
        for j, against in enumerate(task.classes):
            if i != j:
                yield name, "pair_directional_cdnv", f"{of} → {against}", None, task.directional_cdnv[i, j]
                yield name, "pair_cdnv", f"{of} → {against}", None, task.cdnv[i, j]
