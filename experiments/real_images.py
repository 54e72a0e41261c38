"""Real images: what training did to the geometry, the certificates and the accuracy, against simple baselines.

make data
for run in simclr_cifar10 vicreg_cifar10 supervised_cifar10; do
  dnc train --config=configs/${run}_cpu.py --workdir=runs/$run
done
python -m experiments.real_images --dataset=cifar10 --runs=runs \
  --output=experiments/results/real_images --figures=docs/figures/real_images

The same with fashion_mnist. Collapse is read from the runs' measurements (10,000 held-out images, 5,000 that were
trained on). Features of all test images, not normalized, give the few-shot error and certificates of all classes and of
two-class subtasks, with those of all training images k-NN accuracy, with the first 10,000 linear accuracy: of each
run's last checkpoint, of SimCLR's before training, and of raw pixels. Writes DATASET.json, DATASET.md and the runs'
figures; runs that are not in --runs keep the numbers that the output folder has of them. Linear accuracy on raw pixels
takes longest: minutes.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from etils import epath

import dnc
from dnc import distributed, files
from dnc.certificates import two_class
from dnc.features.embedding import features_of
from dnc.geometry.pairs import mean_over_pairs
from dnc.probes import knn_accuracy, probe_accuracies
from dnc.record import plain
from dnc.report import over_time, shots, style
from dnc.report.run import load
from dnc.training.run_encoder import checkpoint_encoder, load_run
from experiments import common

_DATASET = flags.DEFINE_string("dataset", None, "Ending of the runs' names.", required=True)
_RUNS = flags.DEFINE_string("runs", None, "Folder of the runs.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_FIGURES = flags.DEFINE_string("figures", None, "Folder of the runs' figures.", required=True)
_TASK = flags.DEFINE_string("task", "label", "The labeling to report.")

METHODS = ("simclr", "vicreg", "supervised")
LINEAR_IMAGES = 10_000  # for the linear probe
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
BOUNDS = ("luthra2025", "luthra2026", "exact_cantelli", "exact_joint", "exact_conditional")

Features = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    runs = {name: pathlib.Path(str(_RUNS.value)) / f"{name}_{_DATASET.value}" for name in METHODS}
    runs = {name: path for name, path in runs.items() if common.is_complete(path)}
    if "simclr" not in runs:
        raise app.UsageError(f"--runs={_RUNS.value} has no complete run simclr_{_DATASET.value}: train it first")
    images = _images(runs["simclr"])
    encoders: dict[str, Features] = {"raw pixels": _pixels}
    encoders |= {"untrained": _encoder(runs["simclr"], step=0)}
    encoders |= {name: _encoder(path) for name, path in runs.items()}
    measured = {
        "collapse": {name: _collapse(path) for name, path in runs.items()},
        "encoders": {name: _measure(features, images) for name, features in encoders.items()},
    }
    before = pathlib.Path(str(_OUTPUT.value)) / f"{_DATASET.value}.json"
    kept = files.read_json(before) if before.exists() else {}
    names = ("raw pixels", "untrained", *METHODS)
    record = {
        part: {name: (kept.get(part, {}) | new)[name] for name in names if name in kept.get(part, {}) | new}
        for part, new in measured.items()
    }
    earlier = [name for name in record["encoders"] if name not in measured["encoders"]]
    note = ["", f"Of earlier runs, as they were: {', '.join(earlier)}."] if earlier else []
    common.save(_OUTPUT.value, str(_DATASET.value), record, _tables(record) + note)
    for path in runs.values():
        _figures(path, pathlib.Path(str(_FIGURES.value)))


def _images(run: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and test images, and their labels."""
    data = load_run(epath.Path(run), trusted=True).data
    splits = {"train": data.training_images(len(data.source())), "test": data.held_out()}
    return {split: (images, np.asarray(labels[_TASK.value])) for split, (images, labels) in splits.items()}


def _pixels(images: np.ndarray) -> np.ndarray:
    """All of them; of gray images, whose three channels are equal, one channel."""
    gray = (images == images[..., :1]).all()
    return (images[..., :1] if gray else images).reshape(len(images), -1).astype(np.float32) / 255


def _encoder(run: pathlib.Path, step: int | None = None) -> Features:
    mesh = distributed.make_mesh()
    encoder = checkpoint_encoder(load_run(epath.Path(run), trusted=True), epath.Path(run), mesh, step)
    return lambda x: features_of(encoder.encode, x.__getitem__, np.arange(len(x)), encoder.size, mesh)[0]


def _collapse(path: pathlib.Path) -> dict[str, Any]:
    """CDNV and directional CDNV over training, held-out and trained on."""
    run = load(path)
    unit, times = run.times()
    series = {"test": run.series, "train": run.trained_on_series}
    return {unit: times} | {
        f"{measure}_{split}": of(str(_TASK.value), f"mean_{measure}")
        for measure in ("cdnv", "directional_cdnv")
        for split, of in series.items()
    }


def _measure(features: Features, images: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    (train, train_labels), (test, test_labels) = ((features(x), y) for x, y in images.values())
    classes = int(train_labels.max()) + 1
    few, few_labels = train[:LINEAR_IMAGES], train_labels[:LINEAR_IMAGES]
    accuracies = probe_accuracies(jax.random.key(0), few, few_labels, test, test_labels, classes, neighbors=())
    neighbors = knn_accuracy(train, train_labels, test, test_labels, classes)
    accuracies |= {f"knn{k}_test": value for k, value in zip(neighbors.neighbors, neighbors.accuracy, strict=True)}
    task = dnc.analyze(test, test_labels, shots=SHOTS, repeats=50).task
    error = task.few_shot_error()
    numbers: dict[str, Any] = {**accuracies, "shots": SHOTS, "error": error.mean}
    numbers["two_class_error"] = mean_over_pairs(error.per_pair)
    numbers |= {"cdnv": mean_over_pairs(task.cdnv), "directional_cdnv": mean_over_pairs(task.directional_cdnv)}
    for name in BOUNDS if test.shape[1] <= 1024 else BOUNDS[:3]:
        bound = task.certificate(name)
        numbers |= {name: bound.bound, f"two_class_{name}": mean_over_pairs(two_class(bound))}
    return plain(numbers)


def _tables(record: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, curve in record["collapse"].items():
        falls = {key: f"{x[0]:.3g} -> {x[-1]:.3g}, {x[0] / x[-1]:.1f}x" for key, x in curve.items() if "cdnv" in key}
        cells = (f"{falls[f'{key}_test']} ({falls[f'{key}_train']})" for key in ("directional_cdnv", "cdnv"))
        rows.append([name, *cells])
    lines = common.table(["run", "directional CDNV, test (train)", "CDNV, test (train)"], rows)
    encoders = record["encoders"]
    rows = (
        [name, *(f"{x:.3f}" for x in (numbers["knn20_test"], numbers["offline_linear_test"], *numbers["error"][::3]))]
        for name, numbers in encoders.items()
    )
    lines += ["", *common.table(["encoder", "20-NN", "linear", *(f"error, m = {m}" for m in SHOTS[::3])], rows)]
    for prefix, title in (("", "all classes"), ("two_class_", "two classes")):
        names = [name for name in BOUNDS if not (prefix and name == "exact_joint")]
        rows = (
            [name, *(_at_10_and_100(numbers.get(f"{prefix}{key}")) for key in ("error", *names))]
            for name, numbers in encoders.items()
        )
        lines += ["", *common.table([f"{title}, m = 10 / 100", "error", *(f"`{name}`" for name in names)], rows)]
    return lines


def _at_10_and_100(values: Sequence[float] | None) -> str:
    return "" if values is None else " / ".join(f"{values[SHOTS.index(m)]:.3g}" for m in (10, 100))


def _figures(path: pathlib.Path, folder: pathlib.Path) -> None:
    run, task = load(path), str(_TASK.value)
    with style.theme():
        variance = [picture for picture in over_time.variance(run) if picture.name.endswith(f"_{task}")]
        pictures = [*over_time.collapse(run), *variance, *shots.shots(run)[task]]
    for picture in pictures:
        files.write_text(folder / f"{path.name}_{picture.name}.svg", picture.svg)


if __name__ == "__main__":
    common.main(main)
