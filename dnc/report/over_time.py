"""Figures of a training run: collapse, cosines between tasks, the variance split, the loss."""

from collections.abc import Sequence

import numpy as np

from dnc.report import style, tips
from dnc.report.run import Run

_PARTS = {
    "axis": ("decision axis", style.VERMILLION),
    "top1": ("orthogonal, top 1", "#8db4d0"),
    "top10": ("top 10", "#5d96bd"),
    "top100": ("top 100", "#2f78a6"),
    "trace": ("all", "#12486b"),
}

_LOSS_TIPS = 60  # points of the loss that tell their value: more could not be told apart


def collapse(run: Run) -> list[style.Picture]:
    """Directional CDNV and CDNV of every task over training, on one scale so that their falls compare.

    Held-out images: lines. Images that were trained on, where they were measured: dashes.
    """
    unit, times = run.times()
    measures = {
        "directional_cdnv": ("directional CDNV", "mean_directional_cdnv"),
        "cdnv": ("CDNV", "mean_cdnv"),
    }
    series = (run.series, run.trained_on_series) if run.trained_on else (run.series,)
    limits = style.octaves(
        *(of(task, field) for of in series for task in run.last.tasks for _, field in measures.values())
    )
    pictures = []
    for name, (title, field) in measures.items():
        figure, axes = style.panel(style.HALF, title, right=0.78)
        if limits is None:
            style.empty(axes)
        else:
            style.log2_axis(axes, limits)
            style.time_axis(axes, unit, times)
            labels = []
            for index, task in enumerate(run.last.tasks):
                values, look = style.positive(run.series(task, field)), style.task_style(index)
                axes.plot(times, values, **look, marker="o", markersize=2.6, clip_on=False)
                tips.line(axes, times, values, task, unit)
                if run.trained_on:
                    dashed = style.positive(run.trained_on_series(task, field))
                    axes.plot(times, dashed, color=look["color"], linewidth=1.1, linestyle=(0, (4, 2)), clip_on=False)
                    tips.line(axes, times, dashed, f"{task}, trained on", unit)
                labels.append((style.shorten(task, 11), _last(values), look["color"]))
            style.label_ends(axes, labels)
        falls = "; ".join(f"{task} {_from_to(run.series(task, field))}" for task in run.last.tasks)
        if run.trained_on:
            trained_on = "; ".join(f"{task} {_from_to(run.trained_on_series(task, field))}" for task in run.last.tasks)
            falls += f". On images that were trained on (dashed): {trained_on}"
        pictures.append(style.render(figure, f"collapse_{name}", f"{title} over training, first to last: {falls}"))
    return pictures


def cosines(run: Run) -> list[style.Picture]:
    """|cos| between the decision axes of each pair of tasks: median, quartile band, and the valid bound's median."""
    unit, times = run.times()
    names = style.file_names([f"{first} {second}" for first, second in run.last.axes])
    curves = {
        pair: {
            (kind, q): np.array(
                [getattr(a.axes[pair], kind).get(q, np.nan) if pair in a.axes else np.nan for a in run.records]
            )
            for kind in ("cosine", "bound")
            for q in ("q25", "median", "q75")
        }
        for pair in run.last.axes
    }
    limits = style.octaves(*(values for curve in curves.values() for values in curve.values()))
    pictures = []
    for pair, curve in curves.items():
        first, second = pair
        figure, axes = style.panel(style.THIRD, f"{style.shorten(first)} and {style.shorten(second)}", right=0.83)
        if limits is None:
            style.empty(axes)
        else:
            style.log2_axis(axes, limits, most=5)
            style.time_axis(axes, unit, times)
            for kind, color, line in (("bound", style.MUTED, (0, (4, 2))), ("cosine", style.BLUE, "-")):
                low, middle, high = (style.positive(curve[kind, q]) for q in ("q25", "median", "q75"))
                axes.fill_between(times, low, high, color=color, alpha=0.16, linewidth=0)
                axes.plot(times, middle, color=color, linestyle=line, linewidth=1.7 if kind == "cosine" else 1.1)
                shown = [[tips.value(number) for number in numbers] for numbers in (middle, low, high)]
                what = "|cos|" if kind == "cosine" else "bound"
                texts = [
                    f"{what}, {unit} {time:.4g}: median {median}, quartiles {below} to {above}"
                    for time, median, below, above in zip(times, *shown, strict=True)
                ]
                tips.points(axes, times, middle, texts)
            style.label_ends(
                axes,
                [
                    ("bound", _last(style.positive(curve["bound", "median"])), style.MUTED),
                    ("|cos|", _last(style.positive(curve["cosine", "median"])), style.BLUE),
                ],
            )
        alt = (
            f"Cosine between decision axes of {first} and {second} over training: "
            f"median {_from_to(curve['cosine', 'median'])}, bound's median {_from_to(curve['bound', 'median'])}"
        )
        pictures.append(style.render(figure, f"cosines_{names[f'{first} {second}']}", alt))
    return pictures


def variance(run: Run) -> list[style.Picture]:
    """Variance along the decision axis against what is orthogonal to it, mean over class pairs, at a few steps."""
    measured = [task for task in run.last.tasks if run.last.tasks[task].decomposition]
    unit, times = run.times()
    chosen = _log_spaced(times, 5)
    names = style.file_names(measured)
    values = {task: _split_means(run, task, chosen) for task in measured}
    limits = style.octaves(*values.values())
    pictures = []
    for task in measured:
        figure, axes = style.panel(style.HALF, style.shorten(task, 40), right=0.74)
        if limits is None:
            style.empty(axes)
        else:
            style.log2_axis(axes, (limits[0] - 1, limits[1]))
            floor = 2.0 ** (limits[0] - 1)
            for part, (name, color) in enumerate(_PARTS.values()):
                heights, at = style.positive(values[task][:, part]), np.arange(len(chosen)) + (part - 2) * 0.165
                axes.bar(at, heights - floor, 0.15, bottom=floor, color=color)
                corners = [[at - 0.08, np.full(len(at), floor)], [at + 0.08, heights]]
                when = [f", {unit} {times[i]:.3g}" if run.has_time else "" for i in chosen]
                texts = [f"{name}{at_time}: {value:.3g}" for at_time, value in zip(when, heights, strict=True)]
                tips.boxes(axes, np.transpose(corners, (2, 0, 1)), texts)
            axes.set_xticks(range(len(chosen)), [f"{times[i]:.3g}" if run.has_time else "" for i in chosen])
            axes.tick_params(axis="x", length=0)
            axes.set_xlabel(unit if run.has_time else "")
            style.label_ends(
                axes,
                [(name, values[task][-1, part], color) for part, (name, color) in enumerate(_PARTS.values())],
                8.0,
            )
        along, across = (_from_to(values[task][:, part]) for part in (0, -1))
        alt = f"Variance split of {task}: along the decision axis {along}, orthogonal trace {across}"
        pictures.append(style.render(figure, f"variance_{names[task]}", alt))
    return pictures


def loss(run: Run) -> list[style.Picture]:
    """The training loss as logged, and its running median."""
    records = [line for line in run.training if line.get("loss") is not None]
    unit = "epoch" if all(line.get("epoch") is not None for line in records) else "step"
    times = np.array([line.get(unit, index) for index, line in enumerate(records)], float)
    values = np.array([line["loss"] for line in records], float)
    if not np.isfinite(values).any():
        return []
    window = max(1, len(values) // 60)
    smooth = np.array([_median(values[max(0, i - window) : i + window + 1]) for i in range(len(values))])
    thin = np.unique(np.linspace(0, len(values) - 1, min(len(values), 700)).round().astype(int))
    figure, axes = style.panel(style.HALF, "training loss", right=0.96)
    axes.plot(times[thin], values[thin], color=style.SKY, linewidth=0.6, alpha=0.8)
    axes.plot(times[thin], smooth[thin], color=style.BLUE)
    few = thin[np.unique(np.linspace(0, len(thin) - 1, _LOSS_TIPS).round().astype(int))]
    tips.line(axes, times[few], smooth[few], "running median of the loss", unit)
    axes.set_xlabel(unit)
    axes.grid(axis="y", color=style.FAINT, linewidth=0.5)
    axes.margins(x=0.01)
    finite = smooth[np.isfinite(smooth)]
    alt = f"Training loss, running median from {finite[0]:.3g} to {finite[-1]:.3g}"
    return [style.render(figure, "loss", alt)]


def _split_means(run: Run, task: str, chosen: Sequence[int]) -> np.ndarray:
    """Means over class pairs, [chosen steps, parts]."""
    rows = []
    for index in chosen:
        measured = run.records[index].tasks.get(task)
        split = measured.decomposition if measured else {}
        rows.append([_mean(split.get(part, np.empty(0))) for part in _PARTS])
    return np.array(rows, float)


def _log_spaced(times: np.ndarray, most: int) -> list[int]:
    """The first and the last measurement and some in between, about evenly spaced in log time."""
    if len(times) <= most:
        return list(range(len(times)))
    scale = np.log2(1 + times / times[times > 0].min())
    targets = np.linspace(scale[0], scale[-1], most)
    return sorted({int(np.argmin(np.abs(scale - target))) for target in targets})


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _from_to(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite[0]:.3g} to {finite[-1]:.3g}" if finite.size else "n/a"
