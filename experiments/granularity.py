"""Fine classes and the superclasses that contain them: the same run, measured at both granularities.

python -m experiments.granularity --workdir=runs/simclr_cifar10 --output=experiments/results/granularity/simclr_cifar10

The run must have measured two or more labelings of which each coarser one groups the classes of a finer: CIFAR-100's
`label` and `coarse_label`, or `label` and `superclass` of the packaged sets, or a table's columns. Writes
granularity.json, granularity.md and the collapse curves.
"""

import json
import pathlib
from collections.abc import Sequence

from absl import app, flags

from dnc.report import load, over_time, style

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    run = load.load(str(_WORKDIR.value))
    if len(run.last.tasks) < 2:
        raise app.UsageError(f"{run.name} measured one labeling, {next(iter(run.last.tasks))}: granularity needs two")
    tasks = sorted(run.last.tasks, key=lambda task: -len(run.last.tasks[task].classes))
    unit, times = run.times()
    record = {unit: times.tolist(), "tasks": {}}
    lines = ["| labeling | classes | directional CDNV | CDNV | error at the most shots |", "|---|---|---|---|---|"]
    for task in tasks:
        last = run.last.tasks[task]
        directional, classical = (run.series(task, f"mean_{name}") for name in ("directional_cdnv", "cdnv"))
        record["tasks"][task] = {
            "classes": len(last.classes),
            "directional_cdnv": directional.tolist(),
            "cdnv": classical.tolist(),
            "shots": last.shots.tolist(),
            "error": last.error.tolist(),
            "error_before": run.first.tasks[task].error.tolist(),
        }
        lines.append(
            f"| {task} | {len(last.classes)} | {_fall(directional)} | {_fall(classical)} | "
            f"{run.first.tasks[task].error[-1]:.3f} -> {last.error[-1]:.3f}, m = {last.shots[-1]:g} |"
        )
    folder = pathlib.Path(str(_OUTPUT.value))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "granularity.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "granularity.md").write_text(table := "\n".join(lines) + "\n")
    with style.theme():
        for picture in over_time.collapse(run):
            (folder / f"{picture.name}.svg").write_text(picture.svg)
    print(table)


def _fall(values) -> str:
    return f"{values[0]:.3g} -> {values[-1]:.3g}, {values[0] / values[-1]:.1f}x"


if __name__ == "__main__":
    app.run(main)
