"""Which measure tells early how well an encoder will transfer? Rank correlations over methods, settings and seeds.

python -m experiments.early_prediction --workdir=runs/early_prediction --output=experiments/results/early_prediction

Trains every run of `SETTINGS` x `SEEDS` on the digits, at 16 pixels and for 200 steps, measuring at steps 0, 1, 2, 5,
10, ...: a run that is complete is not trained again. At every step, each measure's Spearman correlation, over the
runs, with the final few-shot error of ten shots: 1 if it ranks the runs as the error will. Measures whose higher values
are held to be better (RankMe, effective rank, LiDAR) enter with a minus; alpha-ReQ as |alpha - 1|.
"""

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from scipy.stats import spearmanr

from configs import simclr_digits
from dnc.record import Record
from dnc.report import style
from experiments import common

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)

SEEDS = (0, 1)
SHOT = 10
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "simclr": {},
    "simclr, temperature 0.05": {"objective.temperature": 0.05},
    "simclr, temperature 1": {"objective.temperature": 1.0},
    "simclr, weak crops": {"data.augmentation.crop_scale": (0.9, 1.0)},
    "simclr, hard crops": {"data.augmentation.crop_scale": (0.08, 0.3)},
    "simclr, low learning rate": {"schedule.peak": 1e-4},
    "vicreg": {"objective": dict(name="vicreg", widths=(256, 256, 256))},
    "vicreg, no covariance": {"objective": dict(name="vicreg", widths=(256, 256, 256), covariance_weight=0.0)},
}


def _error(record: Record) -> float:
    task = record.tasks["digit"]
    return float(task.error.mean[task.shots.tolist().index(SHOT)])


MEASURES: Mapping[str, Callable[[Record], float]] = {  # smaller is held to be better
    "directional CDNV": lambda record: record.tasks["digit"].mean_directional_cdnv,
    "CDNV": lambda record: record.tasks["digit"].mean_cdnv,
    "NC1": lambda record: record.tasks["digit"].neural_collapse["within_class_variability"],
    "10-shot error": _error,
    "RankMe": lambda record: -record.spectrum["rankme"],
    "effective rank": lambda record: -record.spectrum["effective_rank"],
    "LiDAR": lambda record: -record.spectrum["lidar"],
    "alpha-ReQ": lambda record: abs(record.spectrum["alpha_req"] - 1),
}


def main() -> None:
    folder = pathlib.Path(str(_WORKDIR.value))
    runs = {
        f"{name}, seed {seed}": common.trained(_config(changes, seed), folder / f"{index}_{seed}")
        for index, (name, changes) in enumerate(SETTINGS.items())
        for seed in SEEDS
    }
    by_step = [{record.step: record for record in run.records} for run in runs.values()]
    steps = sorted(set.intersection(*map(set, by_step)))
    final = [_error(records[steps[-1]]) for records in by_step]
    correlations = {
        name: [_correlation([measure(records[step]) for records in by_step], final) for step in steps]
        for name, measure in MEASURES.items()
    }
    record = {"steps": steps, "final_error": dict(zip(runs, final, strict=True)), "spearman": correlations}
    lines = common.table(
        ["measure, at step", *map(str, steps)],
        ([name, *("" if math.isnan(rho) else f"{rho:.2f}" for rho in row)] for name, row in correlations.items()),
    )
    lines += ["", f"Spearman correlation with the final {SHOT}-shot error over {len(runs)} runs."]
    common.save(_OUTPUT.value, "early_prediction", record, lines)
    _figure(steps, correlations, pathlib.Path(_OUTPUT.value) / "early_prediction.svg")


def _config(changes: Mapping[str, Any], seed: int) -> ConfigDict:
    config: Any = simclr_digits.get_config()
    config.seed = seed
    config.data.resolution = 16
    config.train.duration = dict(steps=200)
    config.measure.collapse.update(shots=(1, 5, SHOT), lidar_examples=200)
    config.objective = changes.get("objective", config.objective)
    config.update_from_flattened_dict({name: value for name, value in changes.items() if name != "objective"})
    return config


def _correlation(values: Sequence[float], final: Sequence[float]) -> float:
    """nan where all values are equal."""
    return float(np.asarray(spearmanr(values, final))[0]) if len(set(values)) > 1 else math.nan


def _figure(steps: Sequence[int], correlations: Mapping[str, Sequence[float]], path: pathlib.Path) -> None:
    with style.theme():
        figure = Figure(figsize=(6.5, 3.4), layout="constrained")
        axes = figure.subplots()
        for index, (name, row) in enumerate(correlations.items()):
            axes.plot(range(len(steps)), row, **style.task_style(index), marker="o", markersize=3, label=name)
        axes.axhline(0, color=style.FAINT, linewidth=0.8)
        axes.set_xticks(range(len(steps)), [str(step) for step in steps])
        axes.set(xlabel="step", ylabel="rank correlation with the final error", ylim=(-1, 1))
        figure.legend(loc="outside right center", frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    common.main(main)
