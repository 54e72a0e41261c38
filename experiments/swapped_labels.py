"""How well hard samples find labels that were swapped, beside cleanlab, nearest neighbors and distances to class means.

python -m experiments.swapped_labels --output=experiments/results/swapped_labels digits NAME=features.npz [...]

5% of the labels, drawn at random, are replaced by another class each. `dnc` ranks samples by P(error) of
`hard_samples`, and flags the doubtful. cleanlab gets out-of-sample probabilities of 5-fold cross-validated logistic
regression on the same features, its strength chosen by accuracy on the given labels; it ranks by its label quality
(self-confidence) and flags by `find_label_issues`. The simple scores are the share of the 20 nearest neighbors with
another label, and the distance to the own class mean (without the sample) over that to the nearest other. A set and
seed that swapped_labels.json holds are not measured again. `digits` is scikit-learn's. Where cleanlab cannot be
imported, name an interpreter that can: --cleanlab_python=/path/to/python; without it, its rows are left out. Writes
swapped_labels.json and .md.

Features as in `experiments.plan_curves`. With --figure, the one file must be of CIFAR-10's first test images, with the
labels as they are; only the picture of the hardest twelve is made:

figure=docs/figures/hard_samples_cifar10.png
python -m experiments.swapped_labels --figure=$figure cifar10=efficientnet_lite0-cifar10.npz
"""

import io
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from etils import epath
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold

import dnc
from dnc import files
from dnc.data.sources import packaged
from dnc.data.sources.packages import package
from dnc.features.files import read_features
from dnc.geometry import validation
from dnc.report import style
from experiments import common

SHARE = 0.05  # of labels that are swapped
SHOTS = (2, 10, 50)
NEIGHBORS = 20
STRENGTHS = (1.0, 10.0)  # C of logistic regression
FOLDS = 5
HARDEST = 12

_CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
with np.load(sys.argv[1], allow_pickle=False) as file:
    labels, probabilities = file["labels"], file["probabilities"]
flags = find_label_issues(labels, probabilities, n_jobs=1)
quality = get_label_quality_scores(labels, probabilities)
print(json.dumps({"flags": np.asarray(flags).tolist(), "quality": np.asarray(quality).tolist()}))
"""

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Draws of the swapped labels.", lower_bound=1)
_PYTHON = flags.DEFINE_string("cleanlab_python", None, "An interpreter that imports cleanlab.")
_FIGURE = flags.DEFINE_string("figure", None, "PNG of the hardest images to write, and nothing else.")
flags.register_validator("cleanlab_python", lambda path: path is None or pathlib.Path(path).exists(), "does not exist")


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("name feature files as NAME=features.npz, or digits")
    named = [argument.partition("=")[::2] for argument in argv[1:]]
    if _FIGURE.value:
        if len(named) > 1:
            raise app.UsageError("--figure takes one feature file, of CIFAR-10")
        _draw_hardest(*_read(*named[0]), _FIGURE.value)
        return
    if not _OUTPUT.value:
        raise app.UsageError("--output=FOLDER is required")
    results: dict[str, Any] = common.saved(_OUTPUT.value, "swapped_labels", {})
    for name, path in named:
        features, labels, _ = _read(name, path)
        for seed in range(_SEEDS.value or 0):
            seeds = results.setdefault(name, {"seeds": {}, **common.machine()})["seeds"]
            if str(seed) not in seeds:
                seeds[str(seed)] = _measure(features, labels, seed)
                common.save(_OUTPUT.value, "swapped_labels", results)
                logging.info("%s, seed %d", name, seed)
    common.save(_OUTPUT.value, "swapped_labels", results, _tables(results))


def _read(name: str, path: str) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Rows of length 1, codes and names of the classes."""
    if not path and name != "digits":
        raise app.UsageError(f"{name}: name a file, {name}=features.npz")
    if path:
        file = read_features(pathlib.Path(path))
        features, labels, names = np.asarray(file.features), np.asarray(file.labels), file.class_names
    else:
        digits = load_digits()
        features, labels, names = digits.data, digits.target, None  # pyright: ignore[reportAttributeAccessIssue]
    codes, found = validation.encode_labels(labels)
    names = [str(c) for c in (found if names is None else names)]
    return np.asarray(validation.unit_rows(features), np.float32), codes, names


def _measure(features: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, Any]:
    labels, swapped = swap(truth, seed)
    result: dict[str, Any] = {"samples": len(labels), "swapped": int(swapped.sum())}
    analysis = dnc.analyze(features, labels)
    for shots in SHOTS:
        found = analysis.hard_samples(shots, top=None)
        rank, flagged = np.empty(len(labels), int), np.zeros(len(labels), bool)
        rank[found.rows] = np.arange(len(labels))
        flagged[found.rows] = found.doubtful
        result[f"dnc, {shots} shots"] = scores(-rank, swapped, flagged)
    result["neighbors"] = scores(_disagreement(features, labels), swapped)
    result["distance ratio"] = scores(_distance_ratio(features, labels), swapped)
    probabilities = _out_of_sample(features, labels, seed)
    if (judged := _cleanlab(probabilities, labels)) is not None:
        result["cleanlab"] = scores(-np.array(judged["quality"]), swapped, np.array(judged["flags"], bool))
    return result


def swap(truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is replaced by one of the other classes, all as likely, and which were."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(truth))[: round(SHARE * len(truth))]
    labels, k = truth.copy(), int(truth.max()) + 1
    labels[rows] = (truth[rows] + rng.integers(1, k, len(rows))) % k
    return labels, labels != truth


def scores(suspicion: np.ndarray, swapped: np.ndarray, flagged: np.ndarray | None = None) -> dict[str, float]:
    """Of a ranking, the most suspicious first, and of flags where there are some."""
    worst = np.argsort(-suspicion, kind="stable")[: swapped.sum()]
    result = {
        "average_precision": float(average_precision_score(swapped, suspicion)),
        "precision_at_swapped": float(swapped[worst].mean()),
    }
    if flagged is not None:
        hits = float(np.sum(flagged & swapped))
        result |= {"flags": int(flagged.sum()), "precision": hits / max(int(flagged.sum()), 1)}
        result["recall"] = hits / float(swapped.sum())
    return result


def _disagreement(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argpartition(-similarity, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    return np.mean(labels[nearest] != labels[:, None], axis=1)


def _distance_ratio(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows, counts = np.arange(len(labels)), np.bincount(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in range(len(counts))])
    distance = np.stack([np.linalg.norm(features - mean, axis=1) for mean in means], axis=1)
    own = distance[rows, labels] * (counts / (counts - 1))[labels]  # the mean without the sample
    distance[rows, labels] = np.inf
    return own / distance.min(axis=1)


def _out_of_sample(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Class probabilities of every sample from logistic regression on the other folds."""
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels))

    def fit(strength: float, fold: int) -> np.ndarray:
        train, test = folds[fold]
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(features[train], labels[train])
        return model.predict_proba(features[test])

    first = {strength: fit(strength, 0) for strength in STRENGTHS}
    best = max(first, key=lambda strength: np.mean(first[strength].argmax(axis=1) == labels[folds[0][1]]))
    probabilities = np.empty((len(labels), int(labels.max()) + 1))
    for fold, (_, test) in enumerate(folds):
        probabilities[test] = first[best] if fold == 0 else fit(best, fold)
    return probabilities


def _cleanlab(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """cleanlab's flags and label quality, from an interpreter that has it; None where there is none."""
    python = _PYTHON.value or sys.executable
    with tempfile.TemporaryDirectory() as folder:
        path = epath.Path(folder) / "probabilities.npz"
        files.write_npz(path, dict(probabilities=probabilities, labels=labels))
        done = subprocess.run([python, "-c", _CLEANLAB, str(path)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if _PYTHON.value:
        raise RuntimeError(f"{python}: {done.stderr.strip()[-500:]}")
    logging.warning("no cleanlab here: name an interpreter that has it with --cleanlab_python")
    return None


def _tables(results: Mapping[str, Any]) -> list[str]:
    one = next(iter(results.values()))
    lines = [
        f"{SHARE:.0%} of labels swapped, means over seeds. Ranking: average precision, and precision among as many as "
        f"were swapped. Flags: how many times the number of swapped labels, precision, recall. {one['machine']}, "
        f"{one['date']}.",
        "",
    ]
    rows = []
    for name, result in results.items():
        seeds = list(result["seeds"].values())
        for method in (key for key in seeds[0] if isinstance(seeds[0][key], dict)):
            of = [seed[method] for seed in seeds if method in seed]
            mean = {key: float(np.mean([values[key] for values in of])) for key in of[0]}
            cells = [f"{mean['average_precision']:.3f}", f"{mean['precision_at_swapped']:.3f}"]
            if "flags" in mean:
                many = np.mean([seed[method]["flags"] / seed["swapped"] for seed in seeds if method in seed])
                cells += [f"{many:.2f}", f"{mean['precision']:.3f}", f"{mean['recall']:.3f}"]
            rows.append([name, str(len(of)), method, *cells, *[""] * (5 - len(cells))])
    head = ["features", "seeds", "score", "average precision", "precision at swapped", "flags", "precision", "recall"]
    return lines + common.table(head, rows)


def _draw_hardest(features: np.ndarray, labels: np.ndarray, names: Sequence[str], path: str) -> None:
    """The hardest images under the labels as they are, with label, suggested class and P(error)."""
    images, truth = packaged.CONFIGS["cifar10"].read(package(packaged.CONFIGS["cifar10"].package))["test"]
    each = len(labels) // len(names)
    chosen = np.sort(np.concatenate([np.flatnonzero(truth == c)[:each] for c in range(len(names))]))
    if not np.array_equal(truth[chosen], labels):
        raise app.UsageError("--figure: these features are not of CIFAR-10's first test images")
    found = dnc.analyze(features, np.array(names)[labels]).hard_samples(10, HARDEST)
    columns, rows = 6, HARDEST // 6
    with style.theme():
        figure = Figure(figsize=(7.8, 1.75 * rows))
        grid = figure.subplots(rows, columns)
        figure.subplots_adjust(left=0.005, right=0.995, top=0.99, bottom=0.14, wspace=0.06, hspace=0.36)
        for index, (axes, row) in enumerate(zip(grid.flat, found.rows, strict=True)):
            axes.imshow(images[chosen[row]], interpolation="bicubic")
            axes.set_axis_off()
            caption = f"{found.label[index]}, or {found.suggested[index]}?\nP(error) {_chance(found.error[index])}"
            axes.text(0.5, -0.04, caption, transform=axes.transAxes, ha="center", va="top", fontsize=7)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    with files.replacing(epath.Path(path)) as scratch:
        scratch.write_bytes(file.getvalue())
    print(found.to_pandas().to_string())


def _chance(error: float) -> str:
    return f"{error:.3f}" if error <= 0.999 else "> 0.999"


if __name__ == "__main__":
    app.run(main)
