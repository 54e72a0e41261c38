"""How well a small pilot tells the few-shot curve, beside a power law and beside moments that are not corrected.

python -m experiments.plan_curves --output=experiments/results/plan NAME=features.npz [NAME=more.npz ...]

From each set, pilots of 5, 10, 20 and 50 random samples of each class. `dnc.plan` expects an error at 20, 50, 100
and 200 shots; a power law a + b m^-c is fitted to the errors measured inside the same pilot (what people do); and the
"plug-in" is the same prediction from moments as if the pilot were the population. The truth is the error measured on
the whole set. Root mean square errors over pilots, and how often the 90% intervals hold the truth. A set that is in
plan.json already is not measured again. `digits` as a name without a file is scikit-learn's. Writes plan.json, .md and
.svg.

The sets of the results, `make data` first; EfficientNet's needs what its error names:

embed="python -m experiments.embed_registry_encoders"
for images in cifar10 fashion_mnist; do for encoder in pixels efficientnet_lite0; do
  $embed --images=$images --encoder=$encoder --output=$encoder-$images.npz; done; done
$embed --images=cifar10 --encoder=augnet_resnet50 --output=augnet-cifar10.npz
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from matplotlib.figure import Figure
from scipy.optimize import OptimizeWarning, curve_fit

import dnc
from dnc.few_shot.predict import predict
from dnc.geometry import validation
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.query_geometry import QueryGeometry
from dnc.report import style
from experiments import common

PILOTS = (5, 10, 20, 50)
SHOTS = (20, 50, 100, 200)
METHODS = {"plan": "dnc.plan", "power_law": "power law", "plug_in": "plug-in"}
_BETWEEN = (1, 2, 3, 5, 10, 15, 30)
_POPULATION = 1e9  # samples, as which a plug-in takes its own

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_REPEATS = flags.DEFINE_integer("pilots", 20, "Pilots of each size.", lower_bound=2)
_NORMALIZE = flags.DEFINE_bool("normalize", True, "Divide each row by its Euclidean norm first.")


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError("name feature files as NAME=features.npz, or digits")
    results: dict[str, Any] = common.saved(_OUTPUT.value, "plan", {})
    for argument in argv[1:]:
        name = argument.partition("=")[0]
        if name not in results:
            results[name] = _measure(*_read(argument), _REPEATS.value, name)
            common.save(_OUTPUT.value, "plan", results)
    common.save(_OUTPUT.value, "plan", results, _tables(results), _figure(results).svg)


def _read(argument: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and class numbers."""
    _, features, labels = common.named_features(argument)
    features = np.asarray(features)
    rows = validation.unit_rows(features) if _NORMALIZE.value else features
    codes, _ = validation.encode_labels(labels)
    return np.asarray(rows, np.float32), codes


def _measure(features: np.ndarray, labels: np.ndarray, pilots: int, name: str) -> dict[str, Any]:
    k, smallest = int(labels.max()) + 1, int(np.bincount(labels).min())
    shots = [m for m in SHOTS if m < 0.9 * smallest]
    truth = dnc.few_shot_error(jax.random.key(0), features, labels, shots, 200, k)
    sizes: dict[str, Any] = {}
    for size in PILOTS:
        found: dict[str, list[np.ndarray]] = {key: [] for key in (*METHODS, "low", "high")}
        for pilot in range(pilots):
            rng = np.random.default_rng((size, pilot))
            rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c in range(k)])
            made = dnc.plan(features[rows], labels[rows], shots=[*_BETWEEN, *shots], seed=pilot)
            at = np.searchsorted(made.shots, shots)
            found["plan"].append(made.error[at])
            found["low"].append(made.low[at])
            found["high"].append(made.high[at])
            found["power_law"].append(_power_law(features[rows], labels[rows], size, shots, pilot))
            found["plug_in"].append(np.asarray(_plug_in(made.geometry, jnp.asarray(shots, jnp.float32))))
        sizes[str(size)] = {key: np.array(values).tolist() for key, values in found.items()}
        logging.info("%s: pilots of %d", name, size)
    return {"classes": k, "shots": shots, "truth": truth.mean, "pilots": sizes, **common.machine()}


def _power_law(features: np.ndarray, labels: np.ndarray, size: int, shots: Sequence[int], seed: int) -> np.ndarray:
    """a + b m^-c through the errors measured inside the pilot, at the wanted shots."""
    inside = [m for m in (1, 2, 3, 5, 7, 10, 15, 20, 30, 40) if m < size]
    measured = dnc.few_shot_error(jax.random.key(seed), features, labels, inside, 200, int(labels.max()) + 1).mean
    error = np.asarray(measured, np.float64)

    def law(m: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a + b * m**-c

    start = (max(error[-1] / 2, 1e-3), error[0], 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        fit, _ = curve_fit(law, np.array(inside, float), error, start, bounds=([0, 0, 0], [1, 5, 3]), maxfev=5000)
    return law(np.array(shots, float), *fit)


@jax.jit
def _plug_in(geometry: PairGeometry, shots: jax.Array) -> jax.Array:
    """The prediction for the pilot itself as the population: no correction is left."""
    assert isinstance(geometry.queries, QueryGeometry)
    queries = dataclasses.replace(geometry.queries, left=jnp.full_like(geometry.queries.left, _POPULATION))
    population = dataclasses.replace(geometry, counts=jnp.full_like(geometry.counts, _POPULATION), queries=queries)
    by_class = jnp.broadcast_to(shots[:, None], (len(shots), len(geometry.counts)))
    return predict(population, by_class, few=False)[0].mean(axis=1)


def _rms(one: Mapping[str, Any], size: int, method: str) -> np.ndarray:
    off = np.array(one["pilots"][str(size)][method]) - np.array(one["truth"])
    return np.sqrt(np.mean(off**2, axis=0))


def _coverage(one: Mapping[str, Any], size: int) -> np.ndarray:
    low, high = (np.array(one["pilots"][str(size)][side]) for side in ("low", "high"))
    truth = np.array(one["truth"])
    return np.mean((low <= truth) & (truth <= high), axis=0)


def _tables(results: Mapping[str, Any]) -> list[str]:
    one = next(iter(results.values()))
    lines = [
        "Root mean square error of the expected error over pilots: `dnc.plan` / power law / plug-in, not corrected. "
        f"{one['machine']}, {one['date']}.",
        "",
    ]
    rows = []
    for name, result in results.items():
        for size in PILOTS:
            columns = [[f"{value:.3f}" for value in _rms(result, size, method)] for method in METHODS]
            cells = [" / ".join(values) for values in zip(*columns, strict=True)]
            rows.append([name, str(size), *cells, *[""] * (len(SHOTS) - len(cells))])
    lines += common.table(["features", "pilot", *(f"m = {m}" for m in SHOTS)], rows)
    lines += ["", "Share of pilots whose 90% interval holds the truth.", ""]
    rows = []
    for size in PILOTS:
        held = {m: [] for m in SHOTS}
        for result in results.values():
            for m, share in zip(result["shots"], _coverage(result, size), strict=True):
                held[m].append(share)
        rows.append([str(size), *(f"{np.mean(held[m]):.2f} ({min(held[m]):.2f})" for m in SHOTS)])
    lines += common.table(["pilot", *(f"m = {m}: mean over sets (least)" for m in SHOTS)], rows)
    lines += ["", "Power law's error over that of `dnc.plan` at m = 100, geometric mean over sets:", ""]
    rows = []
    for size in PILOTS:
        ratios = []
        for result in results.values():
            at = result["shots"].index(100) if 100 in result["shots"] else -1
            ratios.append(_rms(result, size, "power_law")[at] / _rms(result, size, "plan")[at])
        rows.append([str(size), f"{np.exp(np.mean(np.log(ratios))):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"])
    return lines + common.table(["pilot", "ratio", "over sets"], rows)


_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def _figure(results: Mapping[str, Any]) -> style.Picture:
    """A panel a set: error at 100 shots against the size of the pilot."""
    columns = 3
    rows = -(-len(results) // columns)
    colors = {"plan": style.BLUE, "power_law": style.VERMILLION, "plug_in": style.MUTED}
    with style.theme():
        figure = Figure(figsize=(9.6, 3.0 * rows), layout="constrained")
        for index, (name, result) in enumerate(results.items()):
            axes = figure.add_subplot(rows, columns, index + 1)
            at = result["shots"].index(100) if 100 in result["shots"] else -1
            for method, title in METHODS.items():
                values = [_rms(result, size, method)[at] for size in PILOTS]
                axes.plot(PILOTS, values, color=colors[method], marker="o", markersize=4, label=title)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(PILOTS, [str(size) for size in PILOTS])
            axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
            axes.set_ylim(_TICKS[0], _TICKS[-1])
            axes.minorticks_off()
            axes.set_title(style.shorten(name, 32), loc="left")
            axes.set_xlabel("samples of each class in the pilot")
            axes.set_ylabel(f"error of the expected error, m = {result['shots'][at]}" if index % columns == 0 else "")
            if index == 0:
                axes.legend(frameon=False)
        return style.render(figure, "plan", "Error of the expected few-shot error against the size of the pilot")


if __name__ == "__main__":
    app.run(main)
