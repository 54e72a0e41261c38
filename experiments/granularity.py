"""Fine classes and the superclasses that contain them: the same run, measured at both granularities.

python -m experiments.granularity --workdir=runs/simclr_cifar10 --output=experiments/results/granularity/simclr_cifar10

The run must have measured two or more labelings of which each coarser one groups the classes of a finer: CIFAR-100's
`label` and `coarse_label`, or `label` and `superclass` of the packaged sets, or a table's columns. Writes
granularity.json, granularity.md and the collapse curves.
"""

import pathlib

import numpy as np
from absl import app, flags

from dnc import files
from dnc.report import over_time, style
from dnc.report.run import load
from experiments import common

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)


def main() -> None:
    run = load(str(_WORKDIR.value))
    if len(run.last.tasks) < 2:
        raise app.UsageError(f"{run.name} measured one labeling, {next(iter(run.last.tasks))}: granularity needs two")
    unit, times = run.times()
    record, rows = {unit: times, "tasks": {}}, []
    for task, last in sorted(run.last.tasks.items(), key=lambda item: -item[1].num_classes):
        directional, classical = (run.series(task, f"mean_{name}") for name in ("directional_cdnv", "cdnv"))
        before, after = run.first.tasks[task].error.mean, last.error.mean
        record["tasks"][task] = {
            "classes": last.num_classes,
            "directional_cdnv": directional,
            "cdnv": classical,
            "shots": last.shots.astype(float),
            "error": after,
            "error_before": before,
        }
        error = f"{before[-1]:.3f} -> {after[-1]:.3f}, m = {last.shots[-1]}"
        rows.append([task, str(last.num_classes), _fall(directional), _fall(classical), error])
    head = ["labeling", "classes", "directional CDNV", "CDNV", "error at the most shots"]
    common.save(_OUTPUT.value, "granularity", record, common.table(head, rows))
    with style.theme():
        for picture in over_time.collapse(run):
            files.write_text(pathlib.Path(_OUTPUT.value) / f"{picture.name}.svg", picture.svg)


def _fall(values: np.ndarray) -> str:
    return f"{values[0]:.3g} -> {values[-1]:.3g}, {values[0] / values[-1]:.1f}x"


if __name__ == "__main__":
    common.main(main)
