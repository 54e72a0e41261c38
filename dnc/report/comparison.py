"""The page that compares encoders: measured error, geometry and certificates side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnc.record import Record, TaskRecord
from dnc.report import folder, html, page, style, tips
from dnc.report.shots import LABELS
from dnc.report.summary import MEASURES

_MEASURES = {name: label for name, (label, _) in MEASURES.items()}
_LABELS = LABELS | _MEASURES | {"mean_cdnv": "CDNV", "mean_directional_cdnv": "directional CDNV", "nc1": "NC1"}
_SHOWN_MEASURES = ("mean_directional_cdnv", "mean_cdnv", "rankme")
_SHOWN_BOUNDS = ("exact_joint", "exact_conditional")


def write_comparison(
    records: Mapping[str, Record],
    ranking: Sequence[Mapping[str, Any]],
    correlations: Sequence[Mapping[str, Any]],
    folders: Mapping[str, str],
    output: Path,
    first: Mapping[str, str],
) -> None:
    """Write `output`/index.html and figures/ from the encoders' records, by name, and before them the files `first`.

    ranking, correlations: rows of `dnc.Comparison.ranking` and `.rank_correlations`. folders: of the encoders' own
    reports, which are linked and not written. All names are fit to be shown (`Record.shown`, `dnc.names.distinct`).

    Raises FileExistsError when `output` holds files of another origin.
    """
    folder.write(output, first)
    tasks = list(next(iter(records.values())).tasks)
    rows_of = {task: [row for row in ranking if row["task"] == task] for task in tasks}
    with style.theme():
        names = style.file_names(tasks)
        figures = {
            task: _figures(task, names[task], {name: record.tasks[task] for name, record in records.items()})
            for task in tasks
        }
    pictures = [picture for group in figures.values() for picture in group]
    text = page.render(
        "comparison.html",
        pictures,
        title=_headline(rows_of[tasks[0]]),
        encoders=folders,
        slugs=names,
        colors={name: style.task_style(index)["color"] for index, name in enumerate(records)},
        tables={task: _table(task, rows_of[task], records) for task in tasks},
        figures=figures,
        correlations={task: _correlations([row for row in correlations if row["task"] == task]) for task in tasks},
        label=lambda name: _LABELS.get(name, name.replace("_", " ")),
    )
    contents = {**html.figure_files(pictures), "index.html": text}
    folder.write(output, contents)
    folder.keep_only(output, {*first, *contents})


def _middle(ranking: Sequence[Mapping[str, Any]]) -> int:
    """The number of shots in the middle of those measured."""
    shots = sorted({row["shots"] for row in ranking})
    return shots[len(shots) // 2]


def _table(task: str, ranking: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> dict[str, Any]:
    """Rows of encoders, best first at the middle number of shots."""
    every, middle = sorted({row["shots"] for row in ranking}), _middle(ranking)
    shots = sorted({every[0], middle, every[-1]})
    rows = []
    for entry in (row for row in ranking if row["shots"] == middle):
        record = records[entry["encoder"]]
        measured = record.tasks[task]
        errors = {row["shots"]: row for row in ranking if row["encoder"] == entry["encoder"]}
        index = measured.shots.tolist().index(middle)
        measures = {
            **record.spectrum,
            "mean_cdnv": measured.mean_cdnv,
            "mean_directional_cdnv": measured.mean_directional_cdnv,
        }
        bounds = (measured.certificates.get(name) for name in _SHOWN_BOUNDS)
        rows.append(
            {
                "encoder": entry["encoder"],
                "place": entry["place"],
                "errors": [errors[m] for m in shots],
                "measures": [measures.get(key) for key in _SHOWN_MEASURES],
                "bounds": [None if bound is None else bound.bound[index] for bound in bounds],
            }
        )
    return {"shots": shots, "middle": middle, "rows": rows, "measures": _SHOWN_MEASURES, "bounds": _SHOWN_BOUNDS}


def _correlations(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """(measure, [(shots, rho or None)]), the strongest first; empty when there are too few encoders."""
    measures = [key for key in rows[0] if key not in ("task", "shots", "cdnv")]  # the bound `cdnv` follows mean_cdnv
    by_measure = [(key, [(row["shots"], row[key]) for row in rows]) for key in measures]
    known = [(key, values) for key, values in by_measure if any(rho is not None for _, rho in values)]
    return sorted(known, key=lambda entry: -abs(np.mean([rho for _, rho in entry[1] if rho is not None])))


def _headline(ranking: Sequence[Mapping[str, Any]]) -> str:
    """Who is best at the middle number of shots."""
    rows = [row for row in ranking if row["shots"] == _middle(ranking)]
    first = [style.shorten(row["encoder"], 30) for row in rows if row["place"] == 1]
    error = f"{rows[0]['error']:.3g} of queries wrong from {rows[0]['shots']} shots per class"
    if len(first) > 1:
        return f"{' and '.join(first)} share the first place: {error} for the best."
    return f"{first[0]} transfers best: {error}."


def _figures(task: str, name: str, measured: Mapping[str, TaskRecord]) -> list[style.Picture]:
    return [_errors(task, name, measured), _scatter(task, name, measured)]


def _errors(task: str, name: str, measured: Mapping[str, TaskRecord]) -> style.Picture:
    """Measured error against shots, a line per encoder, with one standard deviation over draws."""
    figure, axes = style.panel((4.3, 3.4), f"{style.shorten(task, 24)}: measured error", right=0.69, left=0.8)
    m = next(iter(measured.values())).shots
    means = {encoder: record.error.mean for encoder, record in measured.items()}
    lowest = (style.octaves(*means.values(), least=3) or (-3, 0))[0]
    floor = 2.0 ** min(max(lowest, -14), -2)
    style.plain_log_shots(axes, m)
    style.log2_axis(axes, (int(np.log2(floor)), 0), label=lambda exponent: style.fraction(2.0 ** round(exponent)))
    labels = []
    for index, (encoder, mean) in enumerate(means.items()):
        std, look = measured[encoder].error.std, style.task_style(index)
        low, high = np.maximum(mean - std, floor), np.maximum(mean + std, floor)
        axes.fill_between(m, low, high, color=look["color"], alpha=0.12, linewidth=0)
        axes.plot(m, np.maximum(mean, floor), marker="o", markersize=3, **look)
        tips.line(axes, m, np.maximum(mean, floor), encoder, "m =", mean, std)
        labels.append((style.shorten(encoder, 18), max(float(mean[-1]), floor), look["color"]))
    style.label_ends(axes, labels, 8.0)
    axes.set_ylabel("error")
    alt = f"{task}: " + "; ".join(f"{encoder} {mean[0]:.3g} to {mean[-1]:.3g}" for encoder, mean in means.items())
    return style.render(figure, f"errors_{name}", alt)


def _scatter(task: str, name: str, measured: Mapping[str, TaskRecord]) -> style.Picture:
    """Error at the middle number of shots against mean directional CDNV."""
    figure, axes = style.panel((4.3, 3.4), "error against directional CDNV")
    points = []
    for index, (encoder, record) in enumerate(measured.items()):
        middle = len(record.shots) // 2
        across, up = record.mean_directional_cdnv, record.error.mean[middle]
        if across > 0 and up > 0 and np.isfinite([across, up]).all():
            points.append((encoder, float(across), float(up), style.task_style(index)["color"]))
    if not points:
        style.empty(axes, "n/a")
        return style.render(figure, f"scatter_{name}", f"{task}: nothing to show")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for encoder, across, up, color in points:
        axes.plot([across], [up], "o", color=color, markersize=6)
        tips.points(axes, [across], [up], [f"{encoder}: error {up:.3g}, directional CDNV {across:.3g}"])
        axes.annotate(style.shorten(encoder, 18), (across, up), (6, 4), textcoords="offset points", color=color)
    for axis, values in ((axes.xaxis, [p[1] for p in points]), (axes.yaxis, [p[2] for p in points])):
        low, high = np.floor(np.log2(min(values)) - 0.3), np.ceil(np.log2(max(values)) + 0.3)
        axis.axes.set_xlim(2**low, 2**high) if axis is axes.xaxis else axis.axes.set_ylim(2**low, 2**high)
        axis.set_major_formatter(lambda value, _: style.fraction(float(value)))
        axis.set_minor_locator(style.NullLocator())
    axes.margins(0.2)
    axes.set_xlabel("mean directional CDNV")
    axes.set_ylabel(f"error, m = {next(iter(measured.values())).shots[middle]}")
    alt = f"{task}: " + "; ".join(f"{encoder} at ({across:.3g}, {up:.3g})" for encoder, across, up, _ in points)
    return style.render(figure, f"scatter_{name}", alt)
