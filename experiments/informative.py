"""From how many shots does each certificate say more than a guess? Tables for feature files, and a comparison.

python -m experiments.informative --output=experiments/results/informative NAME=features.npz [NAME=more.npz ...]

Features are L2-normalised. For every labeling: the measured few-shot error and every certificate for m = 1..500, over
all classes and as the mean over two-class subtasks, and the first m, up to 10^6, at which each certificate lies below
chance and below 1/2. `experiments/embed_registry_encoders.py` makes feature files of real images.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags

import dnc
from dnc.certificates import available, two_class
from dnc.feature_files import read_features
from dnc.geometry.pairs import mean_over_pairs
from dnc.task_analysis import TaskAnalysis

_OUTPUT = flags.DEFINE_string("output", None, "Folder for informative.json and informative.md.", required=True)
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
    "gaussian",
)


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2 or not all("=" in one for one in argv[1:]):
        raise app.UsageError("name feature files as NAME=features.npz")
    record = {}
    for argument in argv[1:]:
        name, path = argument.split("=", 1)
        file = read_features(pathlib.Path(path))
        result = dnc.analyze(file.features, file.labels, class_names=file.class_names, normalize=True)
        for task, one in result.tasks.items():
            record[name if len(result.tasks) == 1 else f"{name}, {task}"] = _measure(one)
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "informative.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "informative.md").write_text(table := "\n".join(_tables(record)) + "\n")
    print(table)


def _measure(task: TaskAnalysis) -> dict[str, Any]:
    task.certificate("exact_conditional", (1,))  # measures the queries, also where that takes long
    measured = tuple(m for m in SHOTS if m < task.counts.min())
    error = task.few_shot_error(measured, repeats=_REPEATS.value)
    names = [name for name in SHOWN if name in available(task.geometry) or name == "exact_conditional"]
    chance = {"classes": 1 - 1 / task.num_classes, "two_class": 0.5}
    bounds, first = {}, {}
    for name in names:
        curve = task.certificate(name, SHOTS)
        long = task.certificate(name, SEARCHED if name != "exact_joint" else SEARCHED[::6])
        bounds[name] = {
            "classes": np.asarray(curve.bound).tolist(),
            "two_class": np.asarray(mean_over_pairs(two_class(curve))).tolist(),
        }
        if curve.is_certificate:
            values = {"classes": long.bound, "two_class": mean_over_pairs(two_class(long))}
            first[name] = {
                f"{kind} below {label}": _first(long.shots, np.asarray(values[kind]), long.valid, limit)
                for kind in values
                for label, limit in (("chance", chance[kind]), ("1/2", 0.5))
            }
    return {
        "classes": task.num_classes,
        "directional_cdnv": float(mean_over_pairs(task.directional_cdnv)),
        "cdnv": float(mean_over_pairs(task.cdnv)),
        "shots": SHOTS,
        "measured_shots": measured,
        "error": np.asarray(error.mean).tolist(),
        "error_two_class": np.asarray(mean_over_pairs(error.per_pair)).tolist(),
        "bounds": bounds,
        "first": first,
    }


def _first(shots: Sequence[int], values: np.ndarray, valid: Any, limit: float) -> int | None:
    usable = np.flatnonzero((values < limit) & np.asarray(valid))
    return int(shots[usable[0]]) if usable.size else None


def _tables(record: dict[str, Any]) -> list[str]:
    lines = []
    for name, one in record.items():
        lines += [f"### {name}: {one['classes']} classes", ""]
        lines += [
            f"CDNV {one['cdnv']:.3g}, directional CDNV {one['directional_cdnv']:.3g}; L2-normalised features.",
            "",
        ]
        kinds = [("classes", f"{one['classes']} classes", "error")]
        kinds += [("two_class", "two-class subtasks, mean", "error_two_class")] if one["classes"] > 2 else []
        for kind, title, error in kinds:
            names = [bound for bound in one["bounds"] if kind == "classes" or bound != "exact_joint"]
            lines += [f"| {title}, m | measured error | " + " | ".join(f"`{bound}`" for bound in names) + " |"]
            lines += ["|" + "---|" * (len(names) + 2)]
            for index, m in enumerate(one["shots"]):
                measured = f"{one[error][index]:.3f}" if index < len(one["measured_shots"]) else ""
                values = [f"{one['bounds'][bound][kind][index]:.3f}" for bound in names]
                lines.append(f"| {m} | {measured} | " + " | ".join(values) + " |")
            for limit in ("chance", "1/2"):
                values = [one["first"].get(bound, {}).get(f"{kind} below {limit}", "") for bound in names]
                shown = ["never" if value is None else f"{value}" for value in values]
                lines.append(f"| first m below {limit} | | " + " | ".join(shown) + " |")
            lines.append("")
    return lines


if __name__ == "__main__":
    app.run(main)
