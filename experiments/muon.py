"""Muon against AdamW at equal wall time, with the quickstart's network, data and objective, over several seeds.

python -m experiments.muon --workdir=runs/muon --output=experiments/results/muon

Muon as in configs/quickstart.py; AdamW as that config had it before: peak 0.005, weight decay 0.01. A few steps of each
are timed on this machine first, in turns; AdamW takes as many steps as fit into the time of Muon's, and both warm up
for the same share of them. WORKDIR/plan.json keeps the numbers. Complete runs are not trained again, interrupted ones
go on. A second table says of every run which of `LINES`, what a quickstart is meant to show, hold at its end. Writes
muon.json, .md and .svg.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from configs import quickstart
from dnc import distributed, files
from dnc.data.multitask.render import FACTORS
from dnc.record import TaskRecord
from dnc.report import style, summary
from dnc.report.run import Run, load
from experiments import common

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_SEEDS = flags.DEFINE_multi_integer("seed", [0, 1, 2], "Of weights, batches and pictures.")

OPTIMIZERS = {
    "muon": ("Muon", style.BLUE),
    "adamw": ("AdamW", style.VERMILLION),
}
SHOT = 10
LINES = {
    "fall": "directional CDNV at least 8 times below step 0 in every factor",
    "further": "it falls further than CDNV in every factor",
    "accuracy_10": "accuracy at 10 shots at least 0.75 in every factor",
    "accuracy_100": "accuracy at 100 shots at least 0.9 in every factor",
    "cosines": "median abs(cos) at most 1/8 for every pair of factors",
    "bounds": "no error above a certificate, no cosine above its bound",
}
_TURNS = 3


def main() -> None:
    workdir = pathlib.Path(str(_WORKDIR.value))
    distributed.initialize(batch_size=_config("muon").train.batch_size)
    plan = _plan(workdir / "plan.json")
    runs: dict[str, dict[str, Any]] = {name: {} for name in OPTIMIZERS}
    for seed in _SEEDS.value or []:
        for name in OPTIMIZERS:
            folder = workdir / f"{name}_{seed}"
            common.trained(_config(name, plan["steps"][name], seed), folder)
            runs[name][str(seed)] = _measured(folder)
    record = {"runs": runs, **plan, **common.machine()}
    common.save(_OUTPUT.value, "muon", record, _tables(record), _figure(record).svg)


def _config(name: str, steps: int | None = None, seed: int = 0) -> Any:
    config: Any = quickstart.get_config()
    warmup = config.schedule.warmup.steps / config.train.duration.steps
    config.seed = config.data.seed = seed
    if name == "adamw":
        config.optimizer = dict(name="adamw", weight_decay=0.01, b1=0.9, b2=0.999, eps=1e-8)
        config.schedule.peak = 5e-3
    if steps is not None:
        config.schedule.warmup.steps = round(warmup * steps)
        config.train.duration.steps = steps
    return config


def _plan(path: pathlib.Path) -> dict[str, Any]:
    """Seconds per step and steps of each optimizer; what was planned before stays."""
    if path.exists():
        return files.read_json(path)
    turns = [{name: common.seconds_per_step(_config(name)) for name in OPTIMIZERS} for _ in range(_TURNS)]
    seconds = {name: float(np.median([turn[name] for turn in turns])) for name in OPTIMIZERS}
    steps = _config("muon").train.duration.steps
    plan = {
        "seconds_per_step": seconds,
        "steps": {name: round(steps * seconds["muon"] / seconds[name]) for name in OPTIMIZERS},
    }
    files.write_json(path, plan)
    return plan


def _measured(folder: pathlib.Path) -> dict[str, Any]:
    """Steps, each factor's collapse and ten-shot error at them, and what each of `LINES` came to at the end."""
    run = load(folder)
    records = run.records
    return {
        "lines": _lines(run),
        "steps": [record.step for record in records],
        "factors": {
            factor: {
                "directional_cdnv": [record.tasks[factor].mean_directional_cdnv for record in records],
                "cdnv": [record.tasks[factor].mean_cdnv for record in records],
                "error": [_error(record.tasks[factor]) for record in records],
            }
            for factor in FACTORS
        },
    }


def _lines(run: Run) -> dict[str, tuple[bool, float]]:
    """Of each of `LINES`, whether it holds and the number that decides: of the worst factor or pair, or how many."""
    rows, last, checks = summary.task_rows(run), run.last, summary.checks(run)
    # NumPy's least and largest are nan where a value is, and nan holds no line.
    fall = float(np.min([row.directional_factor for row in rows]))
    further = float(np.min([row.directional_factor / row.cdnv_factor for row in rows]))
    accuracy = {shots: float(np.min([1 - _error(task, shots) for task in last.tasks.values()])) for shots in (10, 100)}
    cosine = float(np.max([axes.cosine["median"] for axes in last.axes.values()]))
    above = len(checks.exceeded) + checks.cosines
    return {
        "fall": (fall >= 8, fall),
        "further": (further > 1, further),
        "accuracy_10": (accuracy[10] >= 0.75, accuracy[10]),
        "accuracy_100": (accuracy[100] >= 0.9, accuracy[100]),
        "cosines": (cosine <= 1 / 8, cosine),
        "bounds": (above == 0, above),
    }


def _error(task: TaskRecord, shots: int = SHOT) -> float:
    return float(task.error.mean[task.shots.tolist().index(shots)])


def _tables(record: Mapping[str, Any]) -> list[str]:
    seconds, steps = record["seconds_per_step"], record["steps"]
    lines = [
        f"Seconds per step: Muon {seconds['muon']:.3f}, AdamW {seconds['adamw']:.3f}, ratio "
        f"{seconds['muon'] / seconds['adamw']:.2f}; steps {steps['muon']} and {steps['adamw']}. "
        f"{record['machine']}, {record['date']}.",
        "",
    ]
    rows = []
    for factor in FACTORS:
        for name, (title, _) in OPTIMIZERS.items():
            found = [run["factors"][factor] for run in record["runs"][name].values()]
            rows.append(
                [
                    factor,
                    title,
                    _each(f"{one['directional_cdnv'][0]:.3g} -> {one['directional_cdnv'][-1]:.3g}" for one in found),
                    _each(f"{one['cdnv'][0]:.3g} -> {one['cdnv'][-1]:.3g}" for one in found),
                    _each(f"{one['error'][-1]:.3f}" for one in found),
                ]
            )
    lines += common.table(["factor", "optimizer", "directional CDNV", "CDNV", f"{SHOT}-shot error"], rows)
    runs = {
        f"{OPTIMIZERS[name][0]}, seed {seed}": run["lines"]
        for name, found in record["runs"].items()
        for seed, run in found.items()
    }
    rows = [
        [title, *(f"{'yes' if line[key][0] else 'no'} ({line[key][1]:.3g})" for line in runs.values())]
        for key, title in LINES.items()
    ]
    return [*lines, "", *common.table(["at the end (worst factor or pair)", *runs], rows)]


def _each(values: Any) -> str:
    return ", ".join(values)


def _figure(record: Mapping[str, Any]) -> style.Picture:
    """A column for each factor: directional CDNV above, ten-shot error below, against minutes of training."""
    with style.theme():
        drawing = Figure(figsize=(9.6, 4.6), layout="constrained")
        panels = drawing.subplots(2, len(FACTORS), sharex=True, sharey="row", squeeze=False)
        values = [
            np.array(run["factors"][factor]["directional_cdnv"])
            for runs in record["runs"].values()
            for run in runs.values()
            for factor in FACTORS
        ]
        limits = style.octaves(*values) or (0, 1)
        for column, factor in enumerate(FACTORS):
            above, below = panels[:, column]
            for name, (title, color) in OPTIMIZERS.items():
                for index, run in enumerate(record["runs"][name].values()):
                    minutes = np.array(run["steps"]) * record["seconds_per_step"][name] / 60
                    label = title if index == 0 else None
                    numbers = run["factors"][factor]
                    above.plot(minutes, style.positive(np.array(numbers["directional_cdnv"])), color=color, label=label)
                    below.plot(minutes, numbers["error"], color=color)
            style.log2_axis(above, limits)
            above.set_title(factor, loc="left")
            below.set_ylim(0, 1)
            below.set_xlabel("minutes of training")
        panels[0, 0].set_ylabel("directional CDNV")
        panels[1, 0].set_ylabel(f"{SHOT}-shot error")
        panels[0, -1].legend(frameon=False)
        alt = "Directional CDNV and ten-shot error of every factor against minutes of training, Muon and AdamW"
        return style.render(drawing, "muon", alt)


if __name__ == "__main__":
    common.main(main)
