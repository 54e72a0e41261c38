"""How well do scores rank candidate encoders on a labeled target, and how much does the first choice cost?

python -m experiments.transferability --candidates=candidates.json --output=experiments/results/transferability

A candidate is one set of features of one data set. The JSON file lists them,

    {"data": "cifar10", "network": "simclr_cifar10", "name": "block5.mean step 1000",
     "train": "train.npz", "test": "test.npz", "key": "features"}

with files as `dnc.features.files` reads them; `key` names the features, and "labels", optional, the labels (without it
`labels`, `label` or the only `labels_TASK`). All candidates of a data set have the same samples in the same order.

Scores are computed from 5, 20 and all samples per class of the training split, drawn once for all candidates. Targets
are errors on the test split, of classes of equal weight: of the nearest center and of logistic regression, taught by m
training samples per class in `--repeats` draws, and of the linear probe of `--linear_samples` training samples. Scores
that depend on m are those of the target's m, or of the largest m for the linear probe. The measured few-shot error is
that of min(m, n / 2) shots within the n samples. A score that cannot be computed ranks last. How rankings are judged:
`experiments.ranking`.

A candidate that was measured before, in `candidates/` of the output, is not measured again; empty that folder after a
change of this program. Programs are compiled for every new number of samples and of features, which
JAX_COMPILATION_CACHE_DIR keeps between runs. Writes transferability.json, .md and .svg.
"""

import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from etils import epath

import dnc
from dnc import files, probes
from dnc.features.files import read_features
from dnc.few_shot.draws import draw_support
from dnc.geometry.pairs import mean_over_pairs
from dnc.geometry.spectrum import rankme
from dnc.geometry.validation import standardize
from dnc.probes.logistic import LinearClassifier, fit_logistic, is_correct
from dnc.probes.splits import accuracy_by_class
from dnc.record import plain
from dnc.report import style
from experiments import common, ranking

SAMPLES = (5, 20)  # per class, besides all
SHOTS = (1, 5, 10, 50)
NEIGHBORS = 20
_LARGEST = 1e30  # of a score

_CANDIDATES = flags.DEFINE_string("candidates", None, "JSON list of candidates.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 20, "Draws of support samples.", lower_bound=1)
_LINEAR_SAMPLES = flags.DEFINE_integer("linear_samples", 10_000, "Training samples of the linear probe.", lower_bound=4)
_BOOTSTRAP = flags.DEFINE_integer("bootstrap", 500, "Draws of networks for intervals.", lower_bound=2)


class Labeled(NamedTuple):
    x: Any  # [n, d]
    y: Any  # [n]


def main() -> None:
    run(str(_CANDIDATES.value), str(_OUTPUT.value), _REPEATS.value, _LINEAR_SAMPLES.value, _BOOTSTRAP.value)


def run(candidates: str, output: str, repeats: int, linear_samples: int, bootstrap: int) -> None:
    measured: list[dict[str, Any]] = []
    for entry in files.read_json(candidates):
        if missing := {"data", "network", "name", "train", "test"} - entry.keys():
            raise app.UsageError(f"a candidate of {candidates} lacks {sorted(missing)}: {entry}")
        path = epath.Path(output) / "candidates" / _file_name(entry, repeats, linear_samples)
        if measured and measured[-1]["data"] != entry["data"]:
            jax.clear_caches()  # programs of hundreds of sizes would be more than a process may map into memory
        if not path.exists():
            files.write_json(path, plain(entry | measure(*splits(entry), repeats, linear_samples)))
            logging.info("%s, %s, %s", entry["data"], entry["network"], entry["name"])
        measured.append(files.read_json(path))
    record = ranking.evaluate(measured, bootstrap) | common.machine(jax=jax.__version__)
    common.save(output, "transferability", record, ranking.tables(record), ranking.figure(record))


def _file_name(entry: Mapping[str, str], repeats: int, linear_samples: int) -> str:
    """Other settings or other files have another name."""
    stats = [pathlib.Path(entry[split]).stat() for split in ("train", "test")]
    key = [entry, repeats, linear_samples, SAMPLES, SHOTS, [(stat.st_size, stat.st_mtime_ns) for stat in stats]]
    name = next(iter(style.file_names([entry["name"]]).values()))
    return f"{name}_{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"


def splits(entry: Mapping[str, str]) -> tuple[Labeled, Labeled]:
    """Training and test split, labels mapped to 0..k-1."""
    train, test = (_read(pathlib.Path(entry[split]), entry) for split in ("train", "test"))
    classes, codes = np.unique(train.y, return_inverse=True)
    if not np.array_equal(classes, np.unique(test.y)):
        raise app.UsageError(f"{entry['train']} and {entry['test']} do not have the same classes")
    return Labeled(train.x, codes.astype(np.int32)), Labeled(test.x, np.searchsorted(classes, test.y).astype(np.int32))


def _read(path: pathlib.Path, entry: Mapping[str, str]) -> Labeled:
    labels = entry.get("labels")
    if labels is None and path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            labels = "label" if "label" in arrays.files and "labels" not in arrays.files else None
    file = read_features(path, None, entry.get("key", "features"), labels)
    tasks = file.labels if isinstance(file.labels, Mapping) else {"": file.labels}
    if len(tasks) > 1:
        raise app.UsageError(f'{path} has the labelings {sorted(tasks)}: choose one with "labels": "labels_NAME"')
    return Labeled(np.asarray(file.features, np.float32), np.asarray(next(iter(tasks.values()))))


def measure(train: Labeled, test: Labeled, repeats: int, linear_samples: int) -> dict[str, Any]:
    """Scores and their seconds by number of samples per class, and the error of each target."""
    k, smallest = int(train.y.max()) + 1, int(np.bincount(train.y).min())
    sizes = {str(n): n for n in SAMPLES if n < smallest} | {"all": len(train.y)}
    scores = {name: score(_first(train, n), k, repeats) for name, n in sizes.items()}
    shots = tuple(m for m in SHOTS if m <= smallest)
    both, _ = standardize(np.concatenate([train.x, test.x]))  # changes no rule, only its rounding
    x, queries = jnp.asarray(both[: len(train.x)]), jnp.asarray(both[len(train.x) :])
    keys, labels = jax.random.split(jax.random.key(0), repeats), (jnp.asarray(train.y), jnp.asarray(test.y))
    errors = transfer_errors(keys, x, labels[0], queries, labels[1], shots=shots, num_classes=k)
    error = np.asarray(errors).mean(axis=0)
    targets = {f"{rule}, m = {m}": error[i, j] for j, rule in enumerate(ranking.RULES) for i, m in enumerate(shots)}
    few = _first(train, max(2, linear_samples // k))
    probe = probes.linear_probe(jax.random.key(0), *few, *test, num_classes=k)
    digest = hashlib.sha256(train.y.tobytes() + test.y.tobytes()).hexdigest()
    return {
        "scores": {name: values for name, (values, _) in scores.items()},
        "seconds": {name: seconds for name, (_, seconds) in scores.items()},
        "targets": targets | {ranking.LINEAR: 1 - jnp.mean(probe.offline_test_per_class)},
        "labels_digest": digest,
    }


def _first(split: Labeled, n: int) -> Labeled:
    """At most n samples of each class, the same for all features of the same labels."""
    order = np.random.default_rng(0).permutation(len(split.y))
    rows = np.sort(np.concatenate([order[split.y[order] == c][:n] for c in range(split.y.max() + 1)]))
    return Labeled(split.x[rows], split.y[rows])


def score(sample: Labeled, k: int, repeats: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Every score, the higher the better, and its seconds; those that depend on m are dicts."""
    scores: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for names, compute in _scores(*sample, k, repeats).items():
        start = time.perf_counter()
        try:
            values = compute()
        except ValueError as error:
            logging.warning("%s: %s", ", ".join(names), error)
            values = [np.nan] * len(names)
        seconds |= dict.fromkeys(names, time.perf_counter() - start)
        scores |= {name: _finite(value) for name, value in zip(names, values, strict=True)}
    return scores, seconds


def _finite(value: float | dict[str, float]) -> float | dict[str, float]:
    """JSON has no infinity; nan, no score, becomes null."""
    if isinstance(value, dict):
        return {m: float(np.clip(entry, -_LARGEST, _LARGEST)) for m, entry in value.items()}
    return float(np.clip(value, -_LARGEST, _LARGEST))


def _scores(x: np.ndarray, y: np.ndarray, k: int, repeats: int) -> dict[tuple[str, ...], Callable[[], Sequence[Any]]]:
    n = int(np.bincount(y).min())
    few = {m: min(m, n // 2) for m in SHOTS}  # shots within the sample, by m

    def collapse() -> Sequence[float]:
        geometry = dnc.pair_geometry(standardize(x)[0], y, num_classes=k, overlap="none")
        measures = geometry.cdnv, geometry.directional_cdnv, jnp.log(geometry.directional_cdnv)
        return [-float(mean_over_pairs(values)) for values in measures]

    def predicted() -> Sequence[dict[str, float]]:
        errors = dnc.analyze(x, y).task.predicted_error(SHOTS).mean
        return [{str(m): -float(error) for m, error in zip(SHOTS, errors, strict=True)}]

    def measured() -> Sequence[dict[str, float]]:
        shots = sorted(set(few.values()))
        error = probes.few_shot_error(jax.random.key(1), x, y, shots, repeats, k).mean
        return [{str(m): -float(error[shots.index(shot)]) for m, shot in few.items()}]

    def neighbors() -> Sequence[float]:
        return [float(probes.knn_leave_one_out(x, y, k, [min(NEIGHBORS, n - 1)]).accuracy[0])]

    return {
        ("LogME",): lambda: [probes.logme(x, y, k)],
        ("H-score",): lambda: [probes.h_score(x, y, k)],
        ("TransRate",): lambda: [probes.transrate(x, y, k)],
        ("TransRate, unscaled",): lambda: [probes.transrate(x, y, k, scaled=False)],
        ("GBC",): lambda: [probes.gbc(x, y, k)],
        ("GBC, diagonal",): lambda: [probes.gbc(x, y, k, spherical=False)],
        ("SFDA",): lambda: [probes.sfda(x, y, k)],
        ("RankMe",): lambda: [float(rankme(x))],
        ("CDNV", "directional CDNV", "log directional CDNV"): collapse,
        (ranking.REFERENCE,): predicted,
        ("few-shot error",): measured,
        ("k-NN accuracy",): neighbors,
        ("number of features",): lambda: [float(x.shape[1])],
    }


@functools.partial(jax.jit, static_argnames=("shots", "num_classes"))
def transfer_errors(
    keys: jax.Array,
    x: jax.Array,
    y: jax.Array,
    queries: jax.Array,
    query_labels: jax.Array,
    *,
    shots: tuple[int, ...],
    num_classes: int,
) -> jax.Array:
    """Errors [r, m, 2] of `ranking.RULES` on all queries, mean over classes, taught by m samples of x of each class.

    Otherwise as `dnc.few_shot_error` and `dnc.few_shot_linear_error`, which draw their queries from the same samples:
    supports are nested, logistic regression has their strength and scales by the support, and ties are errors.
    """
    counts = jnp.bincount(y, length=num_classes)
    classes = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), max(shots))
    column = jnp.tile(jnp.arange(max(shots), dtype=jnp.int32), num_classes)
    start, strength = LinearClassifier.zeros(x.shape[1], num_classes), jnp.asarray(1e-3)

    def one_repeat(key: jax.Array) -> jax.Array:
        support, _ = draw_support(key, y, counts, max(shots))
        samples = x[support.reshape(-1)]

        def of_shots(m: jax.Array) -> jax.Array:
            chosen = (column < m).astype(x.dtype)
            share = chosen / jnp.sum(chosen)
            mean = jnp.dot(share, samples, precision="highest")
            square = jnp.sum(share * jnp.sum((samples - mean[None, :]) ** 2, axis=1))
            inverse = jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
            z, q = ((part - mean[None, :]) * inverse for part in (samples, queries))
            centers = jax.ops.segment_sum(z * chosen[:, None], classes, num_segments=num_classes) / m.astype(z.dtype)
            nearest = LinearClassifier(centers.T, -jnp.sum(centers**2, axis=1) / 2)
            fit = fit_logistic(z, classes, chosen, strength, start, tolerance=1e-4, max_iterations=500)
            correct = [is_correct(rule.scores(q), query_labels) for rule in (nearest, fit.classifier)]
            return jnp.stack([1 - jnp.mean(accuracy_by_class(right, query_labels, num_classes)) for right in correct])

        return jax.lax.map(of_shots, jnp.asarray(shots, jnp.int32))

    return jax.lax.map(one_repeat, keys)


if __name__ == "__main__":
    common.main(main)
