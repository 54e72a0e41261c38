"""Pairs of classes to look at: samples of the hardest, the median and the easiest on their decision axis."""

from typing import TYPE_CHECKING

import numpy as np

from dnc.geometry.decision_plane import decision_plane, representative_pairs
from dnc.record import PairSide, PairView
from dnc.types import Float, Int

if TYPE_CHECKING:
    from dnc.analysis.task import TaskAnalysis

_MEASURED = 5000  # samples of a class: the plane takes as long as one of the ten pairs of the variance split
_SHOWN = 200  # of these: a record of four tasks grows by less than 400 kB, a page by less than 2 MB
_DECIMALS = 3
_ID_LENGTH = 40  # last characters of an id


def pair_views(task: "TaskAnalysis") -> tuple[PairView, ...]:
    """Of the pairs that `representative_pairs` chooses; larger classes are thinned at random, by a fixed seed."""
    views = []
    for rank, pair in representative_pairs(task.directional_cdnv).items():
        rows = [_thinned(np.flatnonzero(task.labels == c), _MEASURED) for c in pair]
        first, second = decision_plane(*(np.asarray(task.features[of_class]) for of_class in rows))
        if not np.isfinite(first).all():
            continue
        error = ((first[:, 0] > 0).mean() + (second[:, 0] < 0).mean()) / 2
        directional = (task.directional_cdnv[pair] + task.directional_cdnv[pair[::-1]]) / 2
        views.append(
            PairView(
                rank,
                _side(task, pair[0], rows[0], first),
                _side(task, pair[1], rows[1], second),
                float(task.cdnv[pair]),
                float(directional),
                float(error),
            )
        )
    return tuple(views)


def _side(task: "TaskAnalysis", c: int, rows: Int[np.ndarray, " n"], points: Float[np.ndarray, "n 2"]) -> PairSide:
    shown = _thinned(np.arange(len(rows)), _SHOWN)
    ids = None if task.ids is None else tuple(_ending(task.ids[row]) for row in rows[shown])
    return PairSide(task.classes[c], int(task.counts[c]), points[shown].round(_DECIMALS), rows[shown], ids)


def _thinned(values: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " m"]:
    if len(values) <= most:
        return values
    return np.sort(np.random.default_rng(0).choice(values, most, replace=False))


def _ending(name: str) -> str:
    return name if len(name) <= _ID_LENGTH else "…" + name[1 - _ID_LENGTH :]
