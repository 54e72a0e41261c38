"""Which measure tells early how well an encoder will transfer? Rank correlations over methods, settings and seeds.

python -m experiments.early_prediction --workdir=runs/early_prediction --output=experiments/results/early_prediction

Trains every run of `SETTINGS` x `SEEDS` on the digits, at 16 pixels and for 200 steps, measuring at steps 0, 1, 2, 5,
10, ...: a run that is complete is not trained again. At every step, each measure's Spearman correlation, over the
runs, with the final few-shot error of ten shots: 1 if it ranks the runs as the error will. Measures of which higher is
said to be better (RankMe, effective rank, LiDAR) enter with a minus; alpha-ReQ as |alpha - 1|.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from etils import epath
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from scipy.stats import spearmanr

from configs import simclr_digits
from dnc.report import style
from dnc.training import loop

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
MEASURES = {  # how a measure of a step's record is read: small is said to be good
    "directional CDNV": lambda one: one["tasks"]["digit"]["summary"]["directional_cdnv"],
    "CDNV": lambda one: one["tasks"]["digit"]["summary"]["cdnv"],
    "NC1": lambda one: one["tasks"]["digit"]["neural_collapse"]["within_class_variability"],
    "10-shot error": lambda one: _error(one),
    "RankMe": lambda one: -one["spectrum"]["rankme"],
    "effective rank": lambda one: -one["spectrum"]["effective_rank"],
    "LiDAR": lambda one: -one["spectrum"]["lidar"],
    "alpha-ReQ": lambda one: abs(one["spectrum"]["alpha_req"] - 1),
}


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    runs = {
        f"{name}, seed {seed}": _measurements(pathlib.Path(str(_WORKDIR.value)) / f"{index}_{seed}", changes, seed)
        for index, (name, changes) in enumerate(SETTINGS.items())
        for seed in SEEDS
    }
    steps = sorted(set.intersection(*(set(one) for one in runs.values())))
    final = np.array([_error(one[steps[-1]]) for one in runs.values()])
    correlations = {
        name: [_correlation([read(one[step]) for one in runs.values()], final) for step in steps]
        for name, read in MEASURES.items()
    }
    folder = pathlib.Path(str(_OUTPUT.value))
    folder.mkdir(parents=True, exist_ok=True)
    record = {"steps": steps, "final_error": dict(zip(runs, final.tolist(), strict=True)), "spearman": correlations}
    (folder / "early_prediction.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "early_prediction.md").write_text(table := _table(steps, correlations, len(runs)))
    _figure(steps, correlations, folder / "early_prediction.svg")
    print(table)


def _config(changes: Mapping[str, Any], seed: int) -> ConfigDict:
    config: Any = simclr_digits.get_config()
    config.seed = seed
    config.data.resolution = 16
    config.train.duration = dict(steps=200)
    config.measure.collapse.update(shots=(1, 5, SHOT), lidar_examples=200)
    for name, value in changes.items():
        *path, last = name.split(".")
        place: Any = config
        for part in path:
            place = place[part]
        place[last] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def _measurements(workdir: pathlib.Path, changes: Mapping[str, Any], seed: int) -> dict[int, Any]:
    """The run's measurements by step; trains it unless that was done."""
    if not (workdir / "report" / "index.html").exists():
        loop.train_and_evaluate(_config(changes, seed), epath.Path(workdir))
    found = (json.loads(path.read_text()) for path in sorted((workdir / "measurements").glob("step_*.json")))
    return {one["step"]: one for one in found}


def _error(one: Mapping[str, Any]) -> float:
    task = one["tasks"]["digit"]
    return task["error"]["mean"][task["shots"].index(SHOT)]


def _correlation(values: Sequence[float], final: np.ndarray) -> float | None:
    found = float(np.asarray(spearmanr(values, final))[0]) if len(set(values)) > 1 else float("nan")
    return found if np.isfinite(found) else None


def _table(steps: Sequence[int], correlations: Mapping[str, Sequence[float | None]], runs: int) -> str:
    lines = ["| measure, at step | " + " | ".join(map(str, steps)) + " |", "|" + "---|" * (len(steps) + 1)]
    for name, row in correlations.items():
        lines.append(f"| {name} | " + " | ".join("" if rho is None else f"{rho:.2f}" for rho in row) + " |")
    lines.append(f"\nSpearman correlation with the final {SHOT}-shot error over {runs} runs.\n")
    return "\n".join(lines)


def _figure(steps: Sequence[int], correlations: Mapping[str, Sequence[float | None]], path: pathlib.Path) -> None:
    with style.theme():
        figure = Figure(figsize=(6.5, 3.4), layout="constrained")
        axes = figure.subplots()
        for index, (name, row) in enumerate(correlations.items()):
            values = [np.nan if rho is None else rho for rho in row]
            axes.plot(range(len(steps)), values, **style.task_style(index), marker="o", markersize=3, label=name)
        axes.axhline(0, color=style.FAINT, linewidth=0.8)
        axes.set_xticks(range(len(steps)), [str(step) for step in steps])
        axes.set(xlabel="step", ylabel="rank correlation with the final error", ylim=(-1, 1))
        figure.legend(loc="outside right center", frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    app.run(main)
