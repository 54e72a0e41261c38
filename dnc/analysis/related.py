"""How several labelings of the same samples relate: cosines of their decision axes, and what they share of variance."""

import itertools
import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from dnc.analysis.task import TaskAnalysis
from dnc.geometry import axes
from dnc.record import AxesRecord


def axes_records(tasks: Mapping[str, TaskAnalysis]) -> dict[tuple[str, str], AxesRecord]:
    """See `Analysis.axes`."""
    if len(tasks) < 2:
        return {}  # k^2 / 2 axes of many classes are large
    axes_of = {
        name: axes.decision_axes(task.features, jnp.asarray(task.labels), num_classes=task.num_classes)
        for name, task in tasks.items()
    }
    return {
        (a, b): _axes_record(axes_of[a], axes_of[b], _independent(tasks[a], tasks[b]))
        for a, b in itertools.combinations(axes_of, 2)
    }


def interference(tasks: Mapping[str, TaskAnalysis]) -> dict[str, dict[str, float]]:
    """See `Analysis.interference`."""
    result: dict[str, dict[str, float]] = {}
    for name, task in tasks.items() if len(tasks) > 1 else ():
        others = {other: labeling for other, labeling in tasks.items() if other != name}
        shares = axes.interference_budget(
            task.features,
            jnp.asarray(task.labels),
            num_classes=task.num_classes,
            other_labels=[jnp.asarray(labeling.labels) for labeling in others.values()],
            other_num_classes=tuple(labeling.num_classes for labeling in others.values()),
        )
        result[name] = dict(zip(others, np.asarray(shares).mean(axis=0).tolist(), strict=True))
    return result


def _independent(first: TaskAnalysis, second: TaskAnalysis) -> bool:
    """Whether every pair of their classes has the same number of samples."""
    cells = np.bincount(first.labels * second.num_classes + second.labels)
    return bool(len(cells) == first.num_classes * second.num_classes and cells.min() == cells.max())


def _axes_record(first: axes.DecisionAxes, second: axes.DecisionAxes, bounded: bool) -> AxesRecord:
    cosine = np.asarray(axes.cosines(first, second))
    bound = np.asarray(axes.orthogonality_bound(first, second))
    bound = bound if bounded else np.full_like(bound, np.nan)
    quantiles = {"q25": 0.25, "median": 0.5, "q75": 0.75}

    def summarize(values: np.ndarray) -> dict[str, float]:
        finite = values[np.isfinite(values)]  # axes between coincident means do not exist
        return {key: float(np.quantile(finite, q)) if finite.size else math.nan for key, q in quantiles.items()}

    rounding = 1e-5 * np.abs(bound) + np.add.outer(np.asarray(first.rounding), np.asarray(second.rounding))
    return AxesRecord(
        cosine=summarize(cosine) | {"max": float(np.nanmax(cosine, initial=0))},
        bound=summarize(bound),
        violations=int((cosine > bound + rounding).sum()),
    )
