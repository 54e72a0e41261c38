"""Figures of class pairs and task pairs at the last step: directional CDNV heatmaps, the interference budget."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from dnc.record import TaskRecord
from dnc.report import style, tips
from dnc.report.run import Run

# Light is collapsed, dark is hard; luminance falls all the way, so it survives gray print and color blindness.
_DARKER_IS_HARDER = LinearSegmentedColormap.from_list(
    "dnc", ["#f7f9fb", "#cfe1ee", "#8fbcd9", "#3f8fc0", "#0f5c8f", "#06263f"]
).with_extremes(bad="#ffffff")


MOST_CLASSES = 100  # whose pairs a heatmap shows
_SHOWN_CLASSES = 24  # of more, those of the hardest pairs
_TOLD_CELLS = 24**2  # that tell their values, the hardest first: those of 100 classes would weigh more than a megabyte


def heatmaps(run: Run) -> dict[str, style.Picture]:
    """Directional CDNV of every ordered pair: row i is the class whose variance counts, column j the class it faces.

    Of more than `MOST_CLASSES`, the pairs of the classes that the hardest pairs are made of.
    """
    names = style.file_names(list(run.last.tasks))
    pictures = {}
    for task, measured in run.last.tasks.items():
        values, classes = style.positive(measured.directional_cdnv), measured.classes
        chosen = np.arange(len(classes))
        title = f"{style.shorten(task, 24)}: directional CDNV"
        if len(classes) > MOST_CLASSES:
            chosen = _of_hardest_pairs(values)
            values, classes = values[np.ix_(chosen, chosen)], tuple(classes[c] for c in chosen)
            title = f"{title}, {len(classes)} of {measured.num_classes:,} classes"
        figure, axes = style.panel((4.3, 3.9), title)
        finite = values[np.isfinite(values)]
        if not finite.size:
            style.empty(axes, "n/a: no class pair has a value")
            pictures[task] = style.render(figure, f"pairs_{names[task]}", f"{task}: no pair was measured")
            continue
        axes.set_position((0.22, 0.2, 0.64, 0.7))
        norm = LogNorm(min(finite.min() / 1.01, finite.max() / 4), finite.max() * 1.01)  # small differences stay pale
        image = axes.imshow(values, cmap=_DARKER_IS_HARDER, norm=norm, aspect="auto", interpolation="nearest")
        _name_classes(axes, classes)
        _tell_cells(axes, measured, chosen)
        if len(classes) <= 8:
            _write_values(axes, values, norm)
        _color_bar(figure, image, finite)
        hardest = np.unravel_index(np.nanargmax(values), values.shape)
        i, j = (classes[index] for index in hardest)
        alt = (
            f"Directional CDNV of all ordered pairs of {len(classes)} classes of {task}, "
            f"from {finite.min():.3g} to {finite.max():.3g}; the hardest is {i} against {j}"
        )
        pictures[task] = style.render(figure, f"pairs_{names[task]}", alt)
    return pictures


def distributions(run: Run) -> dict[str, style.Picture]:
    """The share of ordered pairs above each value of CDNV and directional CDNV, of tasks with many classes."""
    names = style.file_names(list(run.last.tasks))
    pictures = {}
    for task, measured in run.last.tasks.items():
        series = {"directional CDNV": measured.directional_cdnv, "CDNV": measured.cdnv}
        found = {
            name: np.sort(x[np.isfinite(x)]) for name, values in series.items() if (x := style.positive(values)).size
        }
        limits = style.octaves(*found.values())
        if measured.num_classes <= MOST_CLASSES or limits is None:
            continue
        figure, axes = style.panel((4.3, 2.6), f"{style.shorten(task, 24)}: all pairs", right=0.95, left=0.62)
        for (name, values), color in zip(found.items(), (style.BLUE, style.VERMILLION), strict=True):
            at = np.unique(np.linspace(0, len(values) - 1, 400).astype(int))
            axes.plot(values[at], 1 - at / len(values), color=color, label=name)
            few = at[:: max(1, len(at) // 40)]
            texts = [f"{1 - i / len(values):.1%} of pairs: {name} of {values[i]:.3g} or more" for i in few]
            tips.points(axes, values[few], 1 - few / len(values), texts)
        style.log2_axis(axes, limits, along="x")
        axes.set_ylim(0, 1)
        axes.set_xlabel("value")
        axes.set_ylabel("share of pairs above it")
        axes.legend(frameon=False, fontsize=8)
        medians = ", ".join(f"{name} {np.median(values):.3g}" for name, values in found.items())
        pictures[task] = style.render(figure, f"pairs_all_{names[task]}", f"{task}: medians over all pairs: {medians}")
    return pictures


def _of_hardest_pairs(values: np.ndarray) -> np.ndarray:
    """Numbers of `_SHOWN_CLASSES` classes, in the order in which the hardest pairs name them."""
    candidates = np.argpartition(np.nan_to_num(values, nan=0).ravel(), -(_SHOWN_CLASSES**2))[-(_SHOWN_CLASSES**2) :]
    hardest = candidates[np.argsort(-np.nan_to_num(values, nan=0).ravel()[candidates], kind="stable")]
    in_order = np.stack(np.unravel_index(hardest, values.shape), axis=1).ravel()
    _, first = np.unique(in_order, return_index=True)
    return in_order[np.sort(first)][:_SHOWN_CLASSES]


def interference(run: Run) -> list[style.Picture]:
    """Share of the within-class variance on a task's decision axes that each other task explains, in [0, 1]."""
    shares = run.last.interference
    tasks = [task for task in run.last.tasks if task in shares]
    if len(tasks) < 2:
        return []
    values = np.array([[shares[task].get(other, np.nan) for other in tasks] for task in tasks], float)
    np.fill_diagonal(values, np.nan)
    figure, axes = style.panel((4.3, 3.0), "interference budget")
    axes.set_position((0.22, 0.26, 0.64, 0.61))
    norm = Normalize(0, max(0.05, float(np.nanmax([0.0, *values.ravel()]))))
    axes.imshow(values, cmap=_DARKER_IS_HARDER, norm=norm, aspect="auto", interpolation="nearest")
    _name_classes(axes, tasks)
    axes.set_ylabel("")
    axes.set_xlabel("explained by")
    rows, columns = np.nonzero(np.isfinite(values))
    told = zip(rows, columns, strict=True)
    tips.cells(
        axes, rows, columns, [f"{tasks[a]}'s axes, explained by {tasks[b]}: {values[a, b]:.1%}" for a, b in told]
    )
    if len(tasks) <= 10:
        _write_values(axes, values, norm, percent=True)
    alt = "Interference budget: " + "; ".join(
        f"{task}'s axes by {other} {values[a, b]:.1%}"
        for a, task in enumerate(tasks)
        for b, other in enumerate(tasks)
        if np.isfinite(values[a, b])
    )
    return [style.render(figure, "interference", alt)]


def _name_classes(axes: Axes, names: tuple[str, ...] | list[str]) -> None:
    """Every class has a tick up to 24 of them; beyond that indices, because names would overlap."""
    k = len(names)
    if k <= 24:
        short, size = [style.shorten(name, 12) for name in names], 8 if k <= 12 else 6
        axes.set_xticks(range(k), short, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(range(k), short, fontsize=size)
    axes.set_xlabel("toward class j" if k <= 24 else "toward class j, by index")
    axes.set_ylabel("" if k <= 24 else "class i, by index")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _tell_cells(axes: Axes, task: TaskRecord, chosen: np.ndarray) -> None:
    """The hardest pairs of the classes that were chosen to be shown, with the key that the table's rows have."""
    values = style.positive(task.directional_cdnv)[np.ix_(chosen, chosen)]
    hardest = np.argsort(-np.nan_to_num(values, nan=0).ravel(), kind="stable")[:_TOLD_CELLS]
    rows, columns = np.unravel_index(hardest, values.shape)
    known = np.isfinite(values[rows, columns])
    rows, columns = rows[known], columns[known]
    pairs = list(zip(chosen[rows].tolist(), chosen[columns].tolist(), strict=True))
    texts = [
        f"{task.classes[i]} → {task.classes[j]}: directional CDNV {tips.value(float(task.directional_cdnv[i, j]))}, "
        f"CDNV {tips.value(float(task.cdnv[i, j]))}"
        for i, j in pairs
    ]
    tips.cells(axes, rows, columns, texts, [pair_key(i, j) for i, j in pairs])


def pair_key(i: int, j: int) -> str:
    """By which the page's script finds a pair's cell and its row."""
    return f"{i} {j}"


def _write_values(axes: Axes, values: np.ndarray, norm: Normalize, percent: bool = False) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{100 * value:.1f}%" if percent else _short(value)
            color = "white" if norm(value) > 0.55 else style.INK
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)


def _short(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if value < 0.001 else f"{value:#.2g}".removeprefix("0").rstrip(".")


def _color_bar(figure, image, finite: np.ndarray) -> None:
    box = figure.axes[0].get_position()
    axes = figure.add_axes((0.88, box.y0, 0.022, box.height))
    figure.colorbar(image, cax=axes)
    low, high = np.log2(finite.min()), np.log2(finite.max())
    every = max(1, int(np.ceil((high - low) / 5)))
    ticks = [e for e in range(int(np.ceil(low)), int(np.floor(high)) + 1) if e % every == 0]
    axes.minorticks_off()
    axes.set_yticks([2.0**e for e in ticks], [style.power_of_two(e) for e in ticks])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
