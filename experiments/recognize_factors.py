"""Supervised training on one factor of the multitask images against self-supervision: what becomes of the others?

python -m experiments.recognize_factors --workdir=runs/recognize_factors --ssl=runs/quickstart \
  --output=experiments/results/recognize_factors

One short supervised run of the same network per factor (which also shows that each can be recognized), beside a
self-supervised run and its network before training. For every factor: directional CDNV, CDNV and nearest-center error
at 10 and 100 shots of the held-out images. Complete runs are not trained again. Writes recognize_factors.json and
recognize_factors.md.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from configs import supervised_multitask
from dnc.data.multitask.render import FACTORS
from dnc.record import Record
from dnc.report import run
from experiments import common

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for one run per factor.", required=True)
_SSL = flags.DEFINE_string("ssl", None, "Workdir of a self-supervised run, such as the quickstart's.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)

SHOTS = (10, 100)


def main() -> None:
    self_supervised = run.load(str(_SSL.value))
    record = {
        "before training": _numbers(self_supervised.first),
        "self-supervised": _numbers(self_supervised.last),
    }
    for factor, classes in FACTORS.items():
        config: Any = supervised_multitask.get_config()
        config.objective.update(task=factor, num_classes=len(classes))
        config.model.update(self_supervised.config["model"])
        supervised = common.trained(config, pathlib.Path(str(_WORKDIR.value)) / factor)
        record[f"supervised on {factor}"] = _numbers(supervised.last)
    common.save(_OUTPUT.value, "recognize_factors", record, _tables(record))


def _numbers(record: Record) -> dict[str, dict[str, float]]:
    numbers = {}
    for factor in FACTORS:
        task = record.tasks[factor]
        numbers[factor] = {"directional CDNV": task.mean_directional_cdnv, "CDNV": task.mean_cdnv}
        numbers[factor] |= {f"error at {m}": task.error.mean[task.shots.tolist().index(m)] for m in SHOTS}
    return numbers


def _tables(record: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    lines = []
    for number in next(iter(record["self-supervised"].values())):
        rows = ([name, *(f"{row[factor][number]:.3g}" for factor in FACTORS)] for name, row in record.items())
        lines += [*common.table([number, *FACTORS], rows), ""]
    return lines[:-1]


if __name__ == "__main__":
    common.main(main)
