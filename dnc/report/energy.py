"""Figure of captured energy: how early in the features' spectrum each task lives."""

import numpy as np

from dnc.record import Record
from dnc.report import style, tips
from dnc.report.run import Run


def early(run: Run) -> list[style.Picture]:
    """Energy of each task in the first r principal components; of a training run, dotted, that of the first step."""
    tasks = [task for task in run.last.tasks if task in run.last.energy]
    if not tasks:
        return []
    before = run.first if run.has_time and run.first.energy else None
    subtitle = "share of each task that r principal components express" + (" (dotted: at the start)" if before else "")
    figure, axes = style.panel(style.HALF, "how early each task lives", right=0.78, subtitle=subtitle)
    most = max(r for task in tasks for r in run.last.energy[task])
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, max(most, 2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(style.NullLocator())
    axes.set_ylim(0, 1)
    axes.grid(axis="y", color=style.FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("principal components, r")
    axes.set_ylabel("captured energy")
    labels, told = [], []
    for index, task in enumerate(run.last.tasks):
        if task not in tasks:
            continue
        look = style.task_style(index)
        if before is not None and task in before.energy:
            axes.plot(*_line(before, task), color=look["color"], linewidth=0.9, linestyle=(0, (1, 1.5)))
        r, energy = _line(run.last, task)
        axes.plot(r, energy, **look, marker="o", markersize=2.6, clip_on=False)
        tips.line(axes, r, energy, task, "r =")
        labels.append((style.shorten(task, 11), float(energy[-1]), look["color"]))
        told.append(f"{task} {energy[0]:.2f} in one, {energy[-1]:.2f} in all {r[-1]:g}")
    style.label_ends(axes, labels)
    return [style.render(figure, "energy", "Captured energy by principal components: " + "; ".join(told))]


def _line(record: Record, task: str) -> tuple[np.ndarray, np.ndarray]:
    energy = record.energy[task]
    return np.array(list(energy), float), np.array(list(energy.values()), float)
