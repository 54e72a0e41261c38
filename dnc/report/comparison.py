"""The page that compares encoders: measured error, geometry and certificates side by side."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnc.report import html, style
from dnc.report.shots import LABELS

_LABELS = LABELS | {
    "mean_cdnv": "CDNV",
    "mean_directional_cdnv": "directional CDNV",
    "rankme": "RankMe",
    "effective_rank": "effective rank",
    "participation_ratio": "participation ratio",
    "alpha_req": "α-ReQ",
    "nc1": "NC1",
}
_SHOWN_MEASURES = ("mean_directional_cdnv", "mean_cdnv", "rankme")
_SHOWN_BOUNDS = ("exact_joint", "exact_conditional")


def write_comparison(comparison: Mapping[str, Any], analyses: Mapping[str, Mapping[str, Any]], output: Path) -> Path:
    """Write `output`/index.html and figures/ from plain records: `Comparison.to_dict` and each `Analysis.to_dict`.

    Folders of the encoders' own reports, `comparison["encoders"]`, are linked and not written.

    Raises FileExistsError when `output` holds files of another origin.
    """
    html.refuse_foreign(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    tasks = list(next(iter(analyses.values()))["tasks"])
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.resolve().parent) as scratch:
        fresh = Path(scratch) / "new"
        (fresh / "figures").mkdir(parents=True)
        with style.theme():
            names = style.file_names(tasks)
            figures = {task: _figures(task, names[task], analyses) for task in tasks}
        for picture in (picture for group in figures.values() for picture in group):
            (fresh / "figures" / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (fresh / "figures" / f"{picture.name}.png").write_bytes(picture.png)
        page = html.render(
            "comparison.html",
            [picture for group in figures.values() for picture in group],
            title=_headline(tasks, comparison),
            encoders=comparison["encoders"],
            colors={name: style.task_style(index)["color"] for index, name in enumerate(analyses)},
            tables={task: _table(task, comparison, analyses) for task in tasks},
            figures=figures,
            correlations={task: _correlations(task, comparison) for task in tasks},
            label=lambda name: _LABELS.get(name, name.replace("_", " ")),
        )
        (fresh / "index.html").write_text(page, encoding="utf-8")
        html.put_in_place(fresh, output, Path(scratch) / "old")
    return output / "index.html"


def _table(task: str, comparison: Mapping[str, Any], analyses: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of encoders, best first at the middle number of shots."""
    ranking = [row for row in comparison["ranking"] if row["task"] == task]
    every = sorted({row["shots"] for row in ranking})
    shots = sorted({every[0], every[len(every) // 2], every[-1]})
    middle = every[len(every) // 2]
    rows = []
    for entry in (row for row in ranking if row["shots"] == middle):
        record = analyses[entry["encoder"]]
        one = record["tasks"][task]
        errors = {row["shots"]: row for row in ranking if row["encoder"] == entry["encoder"]}
        index = one["shots"].index(middle)
        measures = {**record["spectrum"], **{f"mean_{key}": value for key, value in one["summary"].items()}}
        measures["nc1"] = one["neural_collapse"]["within_class_variability"]
        rows.append(
            {
                "encoder": entry["encoder"],
                "place": entry["place"],
                "errors": [errors[m] for m in shots],
                "measures": [measures.get(key) for key in _SHOWN_MEASURES],
                "bounds": [_bound(one, key, index) for key in _SHOWN_BOUNDS],
            }
        )
    return {"shots": shots, "middle": middle, "rows": rows, "measures": _SHOWN_MEASURES, "bounds": _SHOWN_BOUNDS}


def _bound(task: Mapping[str, Any], name: str, index: int) -> float | None:
    certificate = task["certificates"].get(name)
    return certificate["bound"][index] if certificate else None


def _correlations(task: str, comparison: Mapping[str, Any]) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """(measure, [(shots, rho or None)]), the strongest first; empty when there are too few encoders."""
    rows = [row for row in comparison["rank_correlations"] if row["task"] == task]
    measures = [key for key in rows[0] if key not in ("task", "shots", "cdnv")]  # the bound `cdnv` follows mean_cdnv
    found = [(key, [(row["shots"], row[key]) for row in rows]) for key in measures]
    known = [(key, values) for key, values in found if any(rho is not None for _, rho in values)]
    return sorted(known, key=lambda one: -abs(np.mean([rho for _, rho in one[1] if rho is not None])))


def _headline(tasks: list[str], comparison: Mapping[str, Any]) -> str:
    """Who is best at the middle number of shots of the first task."""
    ranking = [row for row in comparison["ranking"] if row["task"] == tasks[0]]
    every = sorted({row["shots"] for row in ranking})
    rows = [row for row in ranking if row["shots"] == every[len(every) // 2]]
    first = [style.shorten(row["encoder"], 30) for row in rows if row["place"] == 1]
    error = f"{rows[0]['error']:.3g} of queries wrong from {rows[0]['shots']} shots a class"
    if len(first) > 1:
        return f"{' and '.join(first)} share the first place: {error} for the best."
    return f"{first[0]} transfers best: {error}."


def _figures(task: str, name: str, analyses: Mapping[str, Mapping[str, Any]]) -> list[style.Picture]:
    return [_errors(task, name, analyses), _scatter(task, name, analyses)]


def _errors(task: str, name: str, analyses: Mapping[str, Mapping[str, Any]]) -> style.Picture:
    """Measured error against shots, a line an encoder, with one standard deviation over draws."""
    figure, axes = style.panel((4.3, 3.4), f"{style.shorten(task, 24)}: measured error", right=0.69, left=0.8)
    records = {encoder: record["tasks"][task] for encoder, record in analyses.items()}
    m = np.array(next(iter(records.values()))["shots"], float)
    means = {encoder: np.array(record["error"]["mean"], float) for encoder, record in records.items()}
    lowest = (style.octaves(*means.values(), least=3) or (-3, 0))[0]
    floor = 2.0 ** min(max(lowest, -14), -2)
    style.plain_log_shots(axes, m)
    style.log2_axis(axes, (int(np.log2(floor)), 0), label=lambda exponent: style.fraction(2.0 ** round(exponent)))
    labels = []
    for index, (encoder, mean) in enumerate(means.items()):
        std, look = np.array(records[encoder]["error"]["std"], float), style.task_style(index)
        low, high = np.maximum(mean - std, floor), np.maximum(mean + std, floor)
        axes.fill_between(m, low, high, color=look["color"], alpha=0.12, linewidth=0)
        axes.plot(m, np.maximum(mean, floor), marker="o", markersize=3, **look)
        labels.append((style.shorten(encoder, 18), max(float(mean[-1]), floor), look["color"]))
    style.label_ends(axes, labels, 8.0)
    axes.set_ylabel("error")
    alt = f"{task}: " + "; ".join(f"{encoder} {mean[0]:.3g} to {mean[-1]:.3g}" for encoder, mean in means.items())
    return style.render(figure, f"errors_{name}", alt)


def _scatter(task: str, name: str, analyses: Mapping[str, Mapping[str, Any]]) -> style.Picture:
    """Error at the middle number of shots against mean directional CDNV."""
    figure, axes = style.panel((4.3, 3.4), "error against directional CDNV")
    points = []
    for index, (encoder, record) in enumerate(analyses.items()):
        one = record["tasks"][task]
        middle = len(one["shots"]) // 2
        across, up = one["summary"]["directional_cdnv"], one["error"]["mean"][middle]
        if across and up:
            points.append((encoder, float(across), float(up), style.task_style(index)["color"]))
    if not points:
        style.empty(axes, "n/a")
        return style.render(figure, f"scatter_{name}", f"{task}: nothing to show")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for encoder, across, up, color in points:
        axes.plot([across], [up], "o", color=color, markersize=6)
        axes.annotate(style.shorten(encoder, 18), (across, up), (6, 4), textcoords="offset points", color=color)
    for axis, values in ((axes.xaxis, [p[1] for p in points]), (axes.yaxis, [p[2] for p in points])):
        low, high = np.floor(np.log2(min(values)) - 0.3), np.ceil(np.log2(max(values)) + 0.3)
        axis.axes.set_xlim(2**low, 2**high) if axis is axes.xaxis else axis.axes.set_ylim(2**low, 2**high)
        axis.set_major_formatter(lambda value, _: style.fraction(float(value)))
        axis.set_minor_locator(style.NullLocator())
    axes.margins(0.2)
    axes.set_xlabel("mean directional CDNV")
    axes.set_ylabel(f"error, m = {next(iter(analyses.values()))['tasks'][task]['shots'][middle]}")
    alt = f"{task}: " + "; ".join(f"{encoder} at ({across:.3g}, {up:.3g})" for encoder, across, up, _ in points)
    return style.render(figure, f"scatter_{name}", alt)
