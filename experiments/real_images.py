"""Real images: what training did to the geometry, the certificates and the accuracy, against simple baselines.

make data
for run in simclr_cifar10 vicreg_cifar10 supervised_cifar10; do
  dnc train --config=configs/${run}_cpu.py --workdir=runs/$run
done
python -m experiments.real_images --dataset=cifar10 --runs=runs \
  --output=experiments/results/real_images --figures=docs/figures/real_images

The same with fashion_mnist. Collapse is read from the runs' measurements (10,000 held-out images, 5,000 that were
trained on). Features of 10,000 training and all test images, not normalized, give k-NN and linear accuracy, and the
few-shot error and certificates of all classes and of two-class subtasks: of each run's last checkpoint, of SimCLR's
before training, and of raw pixels. Writes DATASET.json, DATASET.md and the runs' figures. Linear accuracy on raw
pixels takes longest: minutes.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from etils import epath

import dnc
from dnc import distributed
from dnc.certificates import two_class
from dnc.features.embedding import features_of
from dnc.geometry.pairs import mean_over_pairs
from dnc.probes import probe_accuracies
from dnc.report import load, over_time, shots, style
from dnc.training.run_encoder import checkpoint_encoder, load_run

_DATASET = flags.DEFINE_string("dataset", None, "Ending of the runs' names.", required=True)
_RUNS = flags.DEFINE_string("runs", None, "Folder of the runs.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_FIGURES = flags.DEFINE_string("figures", None, "Folder of the runs' figures.", required=True)
_TASK = flags.DEFINE_string("task", "label", "The labeling to report.")

METHODS = ("simclr", "vicreg", "supervised")
TRAIN_IMAGES = 10_000
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
BOUNDS = ("luthra2025", "luthra2026", "exact_cantelli", "exact_joint", "exact_conditional")

Features = Callable[[np.ndarray], np.ndarray]


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    folder = pathlib.Path(str(_OUTPUT.value))
    runs = {name: pathlib.Path(str(_RUNS.value)) / f"{name}_{_DATASET.value}" for name in METHODS}
    runs = {name: path for name, path in runs.items() if (path / "report" / "index.html").exists()}
    if "simclr" not in runs:
        raise app.UsageError(f"--runs={_RUNS.value} has no complete run simclr_{_DATASET.value}: train it first")
    images = _images(runs["simclr"])
    encoders: dict[str, Features] = {"raw pixels": _pixels}
    encoders |= {"untrained": _encoder(runs["simclr"], step=0)}
    encoders |= {name: _encoder(path) for name, path in runs.items()}
    record = {
        "collapse": {name: _collapse(path) for name, path in runs.items()},
        "encoders": {name: _measure(features, images) for name, features in encoders.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{_DATASET.value}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{_DATASET.value}.md").write_text(table := _table(record))
    print(table)
    for path in runs.values():
        _figures(path, pathlib.Path(str(_FIGURES.value)))


def _images(run: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training and test images, and their labels."""
    data = load_run(epath.Path(run)).data
    splits = {"train": data.training_images(TRAIN_IMAGES), "test": data.held_out()}
    return {split: (images, np.asarray(labels[_TASK.value])) for split, (images, labels) in splits.items()}


def _pixels(images: np.ndarray) -> np.ndarray:
    """All of them; of gray images, whose three channels are equal, one channel."""
    gray = (images == images[..., :1]).all()
    return (images[..., :1] if gray else images).reshape(len(images), -1).astype(np.float32) / 255


def _encoder(run: pathlib.Path, step: int | None = None) -> Features:
    mesh = distributed.make_mesh()
    encoder = checkpoint_encoder(load_run(epath.Path(run)), epath.Path(run), mesh, step)
    return lambda x: features_of(encoder.encode, x.__getitem__, np.arange(len(x)), encoder.size, mesh)[0]


def _collapse(path: pathlib.Path) -> dict[str, Any]:
    """CDNV and directional CDNV over training, held-out and trained on."""
    run = load.load(path)
    unit, times = run.times()
    series = {"test": run.series, "train": run.seen_series}
    return {unit: times.tolist()} | {
        f"{measure}_{split}": of(str(_TASK.value), f"mean_{measure}").tolist()
        for measure in ("cdnv", "directional_cdnv")
        for split, of in series.items()
    }


def _measure(features: Features, images: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    (train, train_labels), (test, test_labels) = ((features(x), y) for x, y in images.values())
    classes = int(train_labels.max()) + 1
    found: dict[str, Any] = dict(probe_accuracies(jax.random.key(0), train, train_labels, test, test_labels, classes))
    task = dnc.analyze(test, test_labels, shots=SHOTS, repeats=50).task
    error = task.few_shot_error()
    found |= {"shots": SHOTS, "error": np.asarray(error.mean).tolist()}
    found["two_class_error"] = np.asarray(mean_over_pairs(error.per_pair)).tolist()
    found["cdnv"], found["directional_cdnv"] = (float(mean_over_pairs(x)) for x in (task.cdnv, task.directional_cdnv))
    for name in BOUNDS if test.shape[1] <= 1024 else BOUNDS[:3]:
        bound = task.certificate(name)
        found[name] = np.asarray(bound.bound).tolist()
        found[f"two_class_{name}"] = np.asarray(mean_over_pairs(two_class(bound))).tolist()
    return found


def _table(record: Mapping[str, Any]) -> str:
    lines = ["| run | directional CDNV, test (train) | CDNV, test (train) |", "|---|---|---|"]
    for name, curve in record["collapse"].items():
        cells = []
        for measure in ("directional_cdnv", "cdnv"):
            test, train = curve[f"{measure}_test"], curve[f"{measure}_train"]
            cells.append(
                f"{test[0]:.3g} -> {test[-1]:.3g}, {test[0] / test[-1]:.1f}x "
                f"({train[0]:.3g} -> {train[-1]:.3g}, {train[0] / train[-1]:.1f}x)"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| encoder | 20-NN | linear | " + " | ".join(f"error, m = {m}" for m in SHOTS[::3]) + " |"]
    lines += ["|" + "---|" * (3 + len(SHOTS[::3]))]
    for name, one in record["encoders"].items():
        errors = " | ".join(f"{value:.3f}" for value in one["error"][::3])
        lines.append(f"| {name} | {one['knn20_test']:.3f} | {one['offline_linear_test']:.3f} | {errors} |")
    for prefix, title in (("", "all classes"), ("two_class_", "two classes")):
        names = [name for name in BOUNDS if not (prefix and name == "exact_joint")]
        lines += ["", f"| {title}, m = 10 / 100 | error | " + " | ".join(f"`{name}`" for name in names) + " |"]
        lines += ["|" + "---|" * (2 + len(names))]
        for name, one in record["encoders"].items():
            cells = [
                " / ".join(f"{one[key][SHOTS.index(m)]:.3g}" for m in (10, 100)) if key in one else ""
                for key in (f"{prefix}error", *(f"{prefix}{bound}" for bound in names))
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _figures(path: pathlib.Path, folder: pathlib.Path) -> None:
    run, task = load.load(path), str(_TASK.value)
    folder.mkdir(parents=True, exist_ok=True)
    with style.theme():
        variance = [picture for picture in over_time.variance(run) if picture.name.endswith(f"_{task}")]
        pictures = [*over_time.collapse(run), *variance, *shots.shots(run)[task]]
    for picture in pictures:
        (folder / f"{path.name}_{picture.name}.svg").write_text(picture.svg)


if __name__ == "__main__":
    app.run(main)
