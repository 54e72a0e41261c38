"""The page of an encoder's layers and tokens, or of its heads over training: every number against depth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnc import distribution, names
from dnc.names import clean
from dnc.report import folder, html, page, style, tips

Rows = Sequence[Mapping[str, Any]]


def write_layers(
    record: Mapping[str, Any], output: Path, first: Mapping[str, str], provenance: Mapping[str, str] | None = None
) -> Path:
    """Write `output`/index.html and figures/ from `dnc.LayerComparison.to_dict`, and before them the files `first`."""
    folder.write(output, first)
    rows: Rows = record["rows"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    shown = dict(zip(tasks, names.distinct(tasks), strict=True))
    of = {task: [row for row in rows if row["task"] == task] for task in tasks}
    with style.theme():
        files = style.file_names(tasks)
        figures = {task: _figures(shown[task], files[task], of[task], record["sets"]) for task in tasks}
    pictures = [picture for group in figures.values() for picture in group]
    text = page.render(
        "layers.html",
        pictures,
        title=f"{shown[tasks[0]]}: {_headline(of[tasks[0]])}" if len(tasks) > 1 else _headline(of[tasks[0]]),
        sets=record["sets"],
        headlines={shown[task]: _headline(of[task]) for task in tasks},
        tables={shown[task]: _table(of[task], record["sets"]) for task in tasks},
        shots={shown[task]: _shots(of[task]) for task in tasks},
        figures={shown[task]: figures[task] for task in tasks},
        slugs={shown[task]: files[task] for task in tasks},
        provenance={"dnc": distribution.VERSION, **(provenance or {})},
        clean=clean,
    )
    contents = {**html.figure_files(pictures), "index.html": text}
    folder.write(output, contents)
    folder.keep_only(output, {*first, *contents})
    return output / "index.html"


def _shots(rows: Rows) -> list[int]:
    """The fewest, the middle and the most shots that were measured."""
    every = {row["shots"] for row in rows}
    return sorted({min(every), _middle(rows), max(every)})


def _middle(rows: Rows) -> int:
    every = sorted({row["shots"] for row in rows})
    return every[len(every) // 2]


def _headline(rows: Rows) -> str:
    """Which set is best at the middle number of shots, and which cannot be told from it."""
    ranked = sorted((row for row in rows if row["shots"] == _middle(rows)), key=lambda row: row["error"])
    best = clean(ranked[0]["encoder"])
    ties = [clean(row["encoder"]) for row in ranked[1:] if row["place"] == ranked[0]["place"]]
    error = f"{ranked[0]['error']:.3g} of queries wrong from {ranked[0]['shots']} shots per class"
    if not ties:
        return f"{best} serves these labels best: {error}."
    others = ", ".join(ties[:2]) + (f" and {len(ties) - 2} more" if len(ties) > 2 else "")
    return f"{best} is ahead, {error}, but not told apart from {others}."


def _table(rows: Rows, order: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per set, in order of depth, at the middle number of shots, with errors at `_shots`."""
    middle = {row["encoder"]: row for row in rows if row["shots"] == _middle(rows)}
    errors = {(row["encoder"], row["shots"]): row for row in rows}
    return [
        {
            **middle[name],
            "behind": _no_rounding(middle[name]["behind"]),
            "errors": [errors[name, m] for m in _shots(rows)],
        }
        for name in order
    ]


def _no_rounding(difference: float) -> float:
    """0 for what only the order of a sum makes of equal errors."""
    return difference if abs(difference) > 1e-7 else 0.0


def _figures(task: str, name: str, rows: Rows, order: Sequence[str]) -> list[style.Picture]:
    middle = [row for row in rows if row["shots"] == _middle(rows)]
    m = _middle(rows)
    variance = {"directional CDNV": "mean_directional_cdnv", "CDNV": "mean_cdnv"}
    error = {"measured error": "error", "predicted": "predicted"}
    return [
        _by_depth(f"variance_{name}", f"{style.shorten(task, 24)}: variance", variance, middle, order),
        _by_depth(f"error_{name}", f"{style.shorten(task, 24)}: error from {m} shots", error, middle, order),
        _by_depth(
            f"linear_{name}",
            f"{style.shorten(task, 24)}: linear accuracy",
            {"linear accuracy": "linear_accuracy"},
            middle,
            order,
            logarithmic=False,
        ),
    ]


def _by_depth(
    name: str,
    title: str,
    columns: Mapping[str, str],
    rows: Rows,
    order: Sequence[str],
    logarithmic: bool = True,
) -> style.Picture:
    """Columns against depth: a color per token, the first column as a line, the second dashed."""
    figure, axes = style.panel((4.3, 3.2), title, right=0.8, left=0.72, subtitle=_kinds([*columns]))
    layers = list(dict.fromkeys(map(names.layer, order)))
    tokens = list(dict.fromkeys(map(names.token, order)))
    found = {row["encoder"]: row for row in rows}
    labels, told, everything = [], [], []
    for index, token in enumerate(tokens):
        color = style.task_style(index)["color"]
        members = [one for one in order if names.token(one) == token]
        at = np.array([layers.index(names.layer(one)) for one in members], float)
        for (what, column), dashes in zip(columns.items(), ("-", (0, (3, 2))), strict=False):
            values = np.array([_number(found[one][column]) for one in members])
            shown = style.positive(values) if logarithmic else values
            axes.plot(at, shown, color=color, linestyle=dashes, marker="o", markersize=2.5)
            everything.append(shown)
            texts = [f"{clean(one)}: {what} {tips.value(x)}" for one, x in zip(members, values, strict=True)]
            tips.points(axes, at, shown, texts)
            if dashes == "-":
                labels.append((style.shorten(token, 14), float(shown[-1]), color))
            told.append(f"{what} of {token} {_ends(values)}")
    known = np.concatenate(everything)
    if not np.isfinite(known).any():
        style.empty(axes)
        return style.render(figure, name, f"{title}: nothing to show")
    if logarithmic:
        style.log2_axis(axes, style.octaves(known) or (-1, 0))
    _name_layers(axes, layers)
    style.label_ends(axes, labels, 8.0)
    return style.render(figure, name, f"{title} by depth: " + "; ".join(told))


def _kinds(columns: Sequence[str]) -> str:
    """What the lines are, where there are two kinds."""
    return f"{columns[0]} (dashed: {columns[1]})" if len(columns) > 1 else ""


def _name_layers(axes: Any, layers: Sequence[str]) -> None:
    every = -(-len(layers) // 12)
    ticks = sorted({*range(0, len(layers), every), len(layers) - 1})
    if len(ticks) > 1 and ticks[-1] - ticks[-2] < every:
        del ticks[-2]
    axes.set_xticks(ticks, [style.shorten(clean(layers[tick]), 11) for tick in ticks], rotation=40, ha="right")
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlim(-0.3, len(layers) - 0.7)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _ends(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known[0]:.3g} to {known[-1]:.3g}" if known.size else "n/a"
