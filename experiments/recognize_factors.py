"""Supervised training on one factor of the multitask images against self-supervision: what becomes of the others?

python -m experiments.recognize_factors --workdir=runs/recognize_factors --ssl=runs/quickstart \
  --output=experiments/results/recognize_factors

One short supervised run a factor (which also shows that each can be recognized), beside a self-supervised run and its
network before training. For every factor: directional CDNV, CDNV and nearest-center error at 10 and 100 shots of the
held-out images. Complete runs are not trained again. Writes recognize_factors.json and recognize_factors.md.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath

from configs import supervised_multitask
from dnc.data.multitask.render import FACTORS
from dnc.training import loop

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for one run a factor.", required=True)
_SSL = flags.DEFINE_string("ssl", None, "Workdir of a self-supervised run, such as the quickstart's.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)

SHOTS = (10, 100)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    ssl = _measurements(pathlib.Path(str(_SSL.value)))
    record = {"before training": _numbers(ssl[0]), "self-supervised": _numbers(ssl[-1])}
    for factor, classes in FACTORS.items():
        workdir = pathlib.Path(str(_WORKDIR.value)) / factor
        if not (workdir / "report" / "index.html").exists():
            config: Any = supervised_multitask.get_config()
            config.objective.update(task=factor, num_classes=len(classes))
            loop.train_and_evaluate(config, epath.Path(workdir))
        record[f"supervised on {factor}"] = _numbers(_measurements(workdir)[-1])
    folder = pathlib.Path(str(_OUTPUT.value))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recognize_factors.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "recognize_factors.md").write_text(table := _tables(record))
    print(table)


def _measurements(workdir: pathlib.Path) -> list[dict[str, Any]]:
    files = sorted((workdir / "measurements").glob("step_*.json"))
    if not files:
        raise FileNotFoundError(f"{workdir} holds no measurements: train it first")
    return [json.loads(path.read_text()) for path in files]


def _numbers(one: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for factor in FACTORS:
        task = one["tasks"][factor]
        errors = {f"error at {m}": task["error"]["mean"][task["shots"].index(m)] for m in SHOTS}
        found[factor] = {"directional CDNV": task["summary"]["directional_cdnv"], "CDNV": task["summary"]["cdnv"]}
        found[factor] |= errors
    return found


def _tables(record: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = []
    for number in next(iter(record["self-supervised"].values())):
        lines += [f"| {number} | {' | '.join(FACTORS)} |", "|" + "---|" * (len(FACTORS) + 1)]
        for name, row in record.items():
            lines.append(f"| {name} | " + " | ".join(f"{row[factor][number]:.3g}" for factor in FACTORS) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
