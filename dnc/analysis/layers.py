"""One encoder's layers and tokens, or its heads over training, side by side: which serves these labels best.

layers = dnc.compare_layers({"block03.cls": dnc.analyze(a, labels), "block03.mean": dnc.analyze(b, labels), ...})
layers.ranking()                   # by measured few-shot error, with paired intervals; ties share a place
layers.measures()                  # directional CDNV, predicted error and linear accuracy by depth
layers.to_html("report")
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dnc import names
from dnc.analysis import progress
from dnc.analysis.analyze import Analysis
from dnc.analysis.comparison import Comparison, compare, presentable
from dnc.analysis.task import TaskAnalysis
from dnc.jsonable import plain
from dnc.probes.linear import linear_probe

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "dnc.layers/1"


class LayerComparison(Comparison):
    """Analyses of one encoder's feature sets, by LAYER.TOKEN (see `dnc.names`) in order of depth."""

    def measures(self) -> "pd.DataFrame":
        """One row per task, set and number of shots: what is measured of it beside the ranking.

        Columns: task, shots, encoder (the set's name), layer, token, dimension, mean_cdnv, mean_directional_cdnv (means
        over class pairs), predicted (error, closed form; None where it is not part of an analysis), linear_accuracy: of
        logistic regression that is fitted on half of the samples of every class and measured on the other half.
        """
        import pandas as pd

        rows = []
        for name, analysis in self.analyses.items():
            for task, one in analysis.tasks.items():
                with progress.stage(names.clean(name), names.clean(task), "linear accuracy"):
                    linear = _linear_accuracy(one)
                predicted = [None] * len(one.shots)
                if one.without_queries is None:
                    predicted = np.asarray(one.predicted_error().mean, float).tolist()
                geometry = (float(np.nanmean(x)) for x in (one.cdnv, one.directional_cdnv))
                common = (name, names.layer(name), names.token(name), analysis.dimension, *geometry)
                rows += [(task, m, *common, error, linear) for m, error in zip(one.shots, predicted, strict=True)]
        columns = ["task", "shots", "encoder", "layer", "token", "dimension", "mean_cdnv", "mean_directional_cdnv"]
        return pd.DataFrame(rows, columns=[*columns, "predicted", "linear_accuracy"])

    def summary(self) -> str:
        """The ranking at the number of shots in the middle, as a plain-text table."""
        tasks, ranking = next(iter(self.analyses.values())).tasks, self.ranking()
        middle = {task: one.shots[len(one.shots) // 2] for task, one in tasks.items()}
        rows = [shots == middle[task] for task, shots in zip(ranking["task"], ranking["shots"], strict=True)]
        return presentable(ranking.loc[rows]).to_string(index=False, float_format="%.4f")

    def to_dict(self) -> dict[str, Any]:
        """Ranking joined with measures, as plain values: one row per task, number of shots and set."""
        both = self.ranking().merge(self.measures(), on=["task", "shots", "encoder"], validate="one_to_one")
        return {"schema": SCHEMA, "sets": list(self.analyses), "rows": plain(both.to_dict("records"))}

    def to_html(self, output: str | os.PathLike[str], provenance: Mapping[str, str] | None = None) -> pathlib.Path:
        """Write a page of all sets by depth, index.html, and before it the numbers, layers.json.

        Raises FileExistsError when `output` holds files of another origin.
        """
        from dnc.report import folder
        from dnc.report.layers import write_layers

        output = pathlib.Path(output)
        folder.check(output)
        record = self.to_dict()
        return write_layers(record, output, {"layers.json": json.dumps(record, allow_nan=False) + "\n"}, provenance)


def compare_layers(analyses: Mapping[str, Analysis]) -> LayerComparison:
    """Put analyses of one encoder's layers and tokens side by side, by LAYER.TOKEN in order of depth.

    Raises what `dnc.compare` raises.
    """
    return LayerComparison(compare(analyses).analyses)


def _linear_accuracy(task: TaskAnalysis) -> float | None:
    """On the second half of the samples of every class, fitted on the first; None for a class of fewer than four."""
    if task.counts.min() < 4:
        return None
    train, test = task.halves(task.seed)
    splits = train.features, train.labels, test.features, test.labels
    probe = linear_probe(jax.random.key(task.seed), *splits, task.num_classes)
    return float(probe.offline_test_accuracy)
