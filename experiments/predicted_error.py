"""Predicted against measured few-shot error, for as many encoders as there are feature files.

python -m experiments.predicted_error --output=experiments/results/predicted_error NAME=features.npz [NAME=more.npz ...]

For every labeling and m = 1, 2, 3, 5, 10, 20, 50, 100: the error measured over `--repeats` draws with its standard
error, the predicted error, and the difference, over all classes and as the mean over two-class subtasks; and the
seconds that the prediction takes after the geometry. `digits` as a name without a file is scikit-learn's. Features are
measured as they are, with --normalize with rows of length 1. A set that is in predicted_error.json already is not
measured again. Writes predicted_error.json and .md.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

import dnc
from dnc.analysis.task import TaskAnalysis
from dnc.geometry.pairs import mean_over_pairs
from experiments import common

SHOTS = (1, 2, 3, 5, 10, 20, 50, 100)

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 600, "Draws of support samples.", lower_bound=2)
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Divide each row by its Euclidean norm first.")


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("name feature files as NAME=features.npz, or digits")
    results: dict[str, Any] = common.saved(_OUTPUT.value, "predicted_error", {})
    for argument in argv[1:]:
        name = argument.partition("=")[0]
        if any(entry == name or entry.startswith(f"{name}: ") for entry in results):
            continue
        _, features, labels = common.named_features(argument)
        analysis = dnc.analyze(features, labels, normalize=_NORMALIZE.value)
        for labeling, task in analysis.tasks.items():
            title = name if len(analysis.tasks) == 1 else f"{name}: {labeling}"
            results[title] = _measure(task) | {"samples": analysis.samples, "dimension": analysis.dimension}
            logging.info("%s", title)
        common.save(_OUTPUT.value, "predicted_error", results)
    common.save(_OUTPUT.value, "predicted_error", results, _table(results))


def _measure(task: TaskAnalysis) -> dict[str, Any]:
    shots = [m for m in SHOTS if m < task.counts.min()]
    task.predicted_error(shots)  # compiled, and the geometry measured
    start = time.perf_counter()
    predicted = task.predicted_error(shots)
    jax.block_until_ready(predicted.per_pair)
    seconds = time.perf_counter() - start
    measured = task.few_shot_error(shots, repeats=_REPEATS.value)
    return {
        "classes": task.num_classes,
        "shots": shots,
        "measured": measured.mean,
        "standard_error": np.asarray(measured.std) / np.sqrt(_REPEATS.value),
        "predicted": predicted.mean,
        "measured_two_class": mean_over_pairs(measured.per_pair),
        "predicted_two_class": mean_over_pairs(predicted.per_pair),
        "limit": float(task.predicted_error([float("inf")]).mean[0]),
        "seconds": seconds,
        **common.machine(),
    }


def _table(results: Mapping[str, Any]) -> list[str]:
    one = next(iter(results.values()))
    lines = [
        f"Predicted less measured few-shot error (standard error of the measured). {one['machine']}, {one['date']}.",
        "",
    ]
    rows, pairs = [], []
    for name, result in results.items():
        measured, predicted, error = (
            np.array(result[key], float) for key in ("measured", "predicted", "standard_error")
        )
        cells = [f"{p - m:+.4f} ({s:.4f})" for p, m, s in zip(predicted, measured, error, strict=True)]
        size = f"{result['samples']:,} x {result['dimension']:,}, {result['classes']}"
        padding = [""] * (len(SHOTS) - len(cells))
        rows.append([name, size, *cells, *padding, f"{result['seconds']:.2f}"])
        between = np.array(result["predicted_two_class"], float) - np.array(result["measured_two_class"], float)
        pairs.append([name, *(f"{value:+.4f}" for value in between), *padding])
    head = [f"m = {m}" for m in SHOTS]
    lines += common.table(["features", "samples x dimension, classes", *head, "seconds"], rows)
    lines += ["", "The same for two-class subtasks, mean over pairs:", ""]
    return lines + common.table(["features", *head], pairs)


if __name__ == "__main__":
    app.run(main)
