"""Figures of class pairs and task pairs at the last step: directional CDNV heatmaps, the interference budget."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

from dnc.report import style
from dnc.report.run import Run

# Light is collapsed, dark is hard; luminance falls all the way, so it survives gray print and color blindness.
_DARKER_IS_HARDER = LinearSegmentedColormap.from_list(
    "dnc", ["#f7f9fb", "#cfe1ee", "#8fbcd9", "#3f8fc0", "#0f5c8f", "#06263f"]
).with_extremes(bad="#ffffff")


def heatmaps(run: Run) -> dict[str, style.Picture]:
    """Directional CDNV of every ordered pair: row i is the class whose variance counts, column j the class it faces."""
    names = style.file_names(list(run.last.tasks))
    pictures = {}
    for task, measured in run.last.tasks.items():
        values = style.positive(measured.directional_cdnv)
        title = f"{style.shorten(task, 24)}: directional CDNV"
        figure, axes = style.panel((4.3, 3.9), title)
        finite = values[np.isfinite(values)]
        if not finite.size:
            style.empty(axes, "n/a: no class pair has a value")
            pictures[task] = style.render(figure, f"pairs_{names[task]}", f"{task}: no pair was measured")
            continue
        axes.set_position((0.22, 0.2, 0.64, 0.7))
        norm = LogNorm(min(finite.min() / 1.01, finite.max() / 4), finite.max() * 1.01)  # small differences stay pale
        image = axes.imshow(values, cmap=_DARKER_IS_HARDER, norm=norm, aspect="auto", interpolation="nearest")
        _name_classes(axes, measured.classes)
        if measured.num_classes <= 8:
            _write_values(axes, values, norm)
        _color_bar(figure, image, finite)
        hardest = np.unravel_index(np.nanargmax(values), values.shape)
        i, j = (measured.classes[index] for index in hardest)
        alt = (
            f"Directional CDNV of all ordered pairs of {task}, from {finite.min():.3g} to {finite.max():.3g}; "
            f"the hardest is {i} against {j}"
        )
        pictures[task] = style.render(figure, f"pairs_{names[task]}", alt)
    return pictures


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
