"""The baguette picture of the user's own samples: pairs of classes on their decision axis."""

import numpy as np

from dnc.record import PairSide, PairView, TaskRecord
from dnc.report import baguette, style, tips
from dnc.report.run import Run

_SIZE = (3.2, 3.86)  # inches: three per row
_LEAST_WIDE = 1.6  # half the picture, in half distances of the means


def pictures(run: Run) -> dict[str, list[style.Picture]]:
    """For each task of the last step that has them, its pairs, the hardest first."""
    names = style.file_names(list(run.last.tasks))
    return {
        task: [_draw(view, f"views_{names[task]}_{view.rank}", task, _title(view, measured)) for view in measured.views]
        for task, measured in run.last.tasks.items()
        if measured.views
    }


def most_drawn(run: Run) -> int | None:
    """How many samples of a class are drawn where that is not all of some class; None where it is."""
    sides = [side for task in run.last.tasks.values() for view in task.views for side in (view.first, view.second)]
    return max((len(side.points) for side in sides if len(side.points) < side.count), default=None)


def _title(view: PairView, task: TaskRecord) -> str:
    return "both classes" if task.num_classes == 2 else f"{view.rank} pair"


def _draw(view: PairView, name: str, task: str, title: str) -> style.Picture:
    sides = (view.first, view.second)
    scene = baguette.Clouds(view.first.points, view.second.points, view.cdnv, view.directional_cdnv, view.error)
    along, across = np.abs(np.concatenate([side.points for side in sides] + [np.zeros((1, 2))])).max(axis=0)
    wide = max(_LEAST_WIDE, 1.04 * along, 1.04 * across / baguette.HIGH)
    figure, axes = style.panel(_SIZE, title)
    baguette.draw(figure, axes, scene, wide, (view.first.name, view.second.name))
    for side, color, x, align in zip(sides, baguette.COLORS, (0.02, 0.98), ("left", "right"), strict=True):
        inward = x + 0.03 * (1 if align == "left" else -1)
        axes.plot([x], [0.96], "o", color=color, markersize=5, transform=axes.transAxes)
        axes.text(
            inward, 0.96, style.shorten(side.name, 18), ha=align, va="center", fontsize=8, transform=axes.transAxes
        )
        tips.points(axes, side.points[:, 0], side.points[:, 1], _texts(side), radius=2.5)
    tips.points(axes, [-1.0, 1.0], [0.0, 0.0], [f"mean of {side.name}" for side in sides])
    drawn = " and ".join(f"{len(side.points)} of {side.count:,} samples of {side.name}" for side in sides)
    return baguette.finish(figure, scene, name, f"{task}, {title}, {drawn}")


def _texts(side: PairSide) -> list[str]:
    samples = side.ids or [f"row {row}" for row in side.rows]
    return [
        f"{side.name}, {sample}: {x:.2f} along u, {y:.2f} across"
        for sample, (x, y) in zip(samples, side.points, strict=True)
    ]
