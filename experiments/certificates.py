"""Few-shot error against every certificate, for as many encoders as there are feature files: tables and a figure.

python -m experiments.certificates --output=experiments/results/certificates NAME=features.npz [NAME=more.npz ...]

Features are L2-normalized. For every labeling: the measured few-shot error and every certificate for m = 1..500, over
all classes and as the mean over two-class subtasks, and the first m, up to 10^6, at which each certificate lies below
chance and below 1/2: from there on it says more than a guess. Writes certificates.json, .md and .svg.

Feature files of CIFAR-10, from before training and raw pixels to the best encoder at hand:

embed="python -m experiments.embed_registry_encoders --images=cifar10"
$embed --encoder=pixels --output=pixels.npz
$embed --encoder=augnet_resnet50 --output=augnet.npz                 # the published encoders need torch, see there
$embed --encoder=efficientnet_lite0 --output=efficientnet.npz
dnc embed --run_images --workdir=runs/simclr_cifar10 --step=0 --output=untrained.npz
for run in simclr vicreg supervised; do dnc embed --run_images --workdir=runs/${run}_cifar10 --output=$run.npz; done
python -m experiments.certificates --output=experiments/results/certificates "raw pixels"=pixels.npz \
  untrained=untrained.npz SimCLR=simclr.npz VICReg=vicreg.npz AugNet=augnet.npz supervised=supervised.npz \
  EfficientNet-Lite0=efficientnet.npz
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

import dnc
from dnc.analysis.recorded import certificate_record, error_record
from dnc.analysis.task import TaskAnalysis
from dnc.certificates import available, two_class
from dnc.features.files import read_features
from dnc.geometry.pairs import mean_over_pairs
from dnc.record import ErrorRecord, TaskRecord
from dnc.report import shots, style
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 50, "Draws of support samples.", lower_bound=1)

SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SEARCHED = tuple(sorted({round(x) for x in np.geomspace(1, 10**6, 181)}))
SHOWN = (
    "luthra2025",
    "luthra2026",
    "exact_chebyshev",
    "exact_cantelli",
    "exact_joint",
    "exact_conditional",
)
REDUNDANT = ("two_class", "exact_joint")  # for two classes it is exact_cantelli


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2 or not all("=" in argument for argument in argv[1:]):
        raise app.UsageError("name feature files as NAME=features.npz")
    records: dict[str, TaskRecord] = {}
    first: dict[str, dict[str, Any]] = {}
    for argument in argv[1:]:
        name, path = argument.split("=", 1)
        file = read_features(pathlib.Path(path))
        result = dnc.analyze(file.features, file.labels, class_names=file.class_names, normalize=True)
        for labeling, task in result.tasks.items():
            title = name if len(result.tasks) == 1 else f"{name}, {labeling}"
            records[title] = _measure(task)
            first[title] = {
                key: _informative_from(task, key)
                for key, curve in records[title].certificates.items()
                if curve.is_certificate
            }
    results = {title: _entry(record) | {"first": first[title]} for title, record in records.items()}
    common.save(_OUTPUT.value, "certificates", results, _tables(results), _figure(records).svg)


def _measure(task: TaskAnalysis) -> TaskRecord:
    """The task at SHOTS, also where there are too few samples to measure an error."""
    task.certificate("exact_conditional", (1,))  # measures the queries, also where that takes long
    measured = tuple(m for m in SHOTS if m < task.counts.min())
    error = error_record(task.few_shot_error(measured, repeats=_REPEATS.value))
    names = [name for name in SHOWN if name in available(task.geometry) or name == "exact_conditional"]
    return dataclasses.replace(
        task.record(),
        shots=np.asarray(SHOTS),
        repeats=_REPEATS.value,
        error=ErrorRecord(*(_padded(getattr(error, field.name)) for field in dataclasses.fields(error))),
        certificates={name: certificate_record(task.certificate(name, SHOTS)) for name in names},
        predicted=None,  # at the analysis's own shots
        guarantee=None,
    )


def _padded(values: np.ndarray) -> np.ndarray:
    """With nan for the shots that were not measured."""
    return np.pad(values, [(0, len(SHOTS) - len(values))] + [(0, 0)] * (values.ndim - 1), constant_values=math.nan)


def _entry(record: TaskRecord) -> dict[str, Any]:
    """What the results hold of a task: curves over shots, without pairs and classes."""
    task = record.to_json()
    curves = {key: {**curve} for key, curve in task["certificates"].items()}
    for curve in (task["error"], *curves.values()):
        curve.pop("per_class")
    return {key: task[key] for key in ("classes", "summary", "shots", "repeats", "error")} | {"certificates": curves}


def _informative_from(task: TaskAnalysis, name: str) -> dict[str, int | None]:
    long = task.certificate(name, SEARCHED if name != "exact_joint" else SEARCHED[::6])
    values = {"classes": long.bound, "two_class": mean_over_pairs(two_class(long))}
    chance = {"classes": 1 - 1 / task.num_classes, "two_class": 0.5}
    return {
        f"{kind} below {label}": _first(long.shots, np.asarray(values[kind]), long.valid, limit)
        for kind in values
        for label, limit in (("chance", chance[kind]), ("1/2", 0.5))
    }


def _first(shots: Sequence[int], values: np.ndarray, valid: Any, limit: float) -> int | None:
    usable = np.flatnonzero((values < limit) & np.asarray(valid))
    return int(shots[usable[0]]) if usable.size else None


def _tables(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, one in record.items():
        k, summary = len(one["classes"]), one["summary"]
        lines += [f"### {name}: {k} classes", ""]
        lines += [
            f"CDNV {summary['cdnv']:.3g}, directional CDNV {summary['directional_cdnv']:.3g}; L2-normalized features.",
            "",
        ]
        columns = [("classes", f"{k} classes", "bound", "mean")]
        columns += [("two_class", "two-class subtasks, mean", "two_class", "two_class")] if k > 2 else []
        for kind, title, bound, error in columns:
            curves = {key: c[bound] for key, c in one["certificates"].items() if (kind, key) != REDUNDANT}
            lines += [f"| {title}, m | measured error | " + " | ".join(f"`{key}`" for key in curves) + " |"]
            lines += ["|" + "---|" * (len(curves) + 2)]
            for m, measured, *values in zip(one["shots"], one["error"][error], *curves.values(), strict=True):
                cells = ["" if measured is None else f"{measured:.3f}", *(f"{value:.3f}" for value in values)]
                lines.append(f"| {m} | {' | '.join(cells)} |")
            for limit in ("chance", "1/2"):
                values = [one["first"].get(key, {}).get(f"{kind} below {limit}", "") for key in curves]
                shown = ["never" if value is None else f"{value}" for value in values]
                lines.append(f"| first m below {limit} | | " + " | ".join(shown) + " |")
            lines.append("")
    return lines


def _figure(tasks: Mapping[str, TaskRecord]) -> style.Picture:
    """A row a labeling: all classes on the left, two-class subtasks on the right."""
    width, height = shots.PANEL
    with style.theme():
        figure = Figure(figsize=(2 * width, height * len(tasks)))
        parts = figure.subfigures(len(tasks), 2, squeeze=False)
        for row, (name, task) in zip(parts, tasks.items(), strict=True):
            for part, (kind, title) in zip(row, shots.kinds(task).items(), strict=False):
                shots.draw(part, task, kind, f"{style.shorten(name, 24)}, {title}")
        alt = f"Few-shot error and certificates against shots: {', '.join(tasks)}"
        return style.render(figure, "certificates", alt)


if __name__ == "__main__":
    app.run(main)
