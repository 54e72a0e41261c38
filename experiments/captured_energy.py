"""Captured energy of the multitask factors: its law, its bound, and how early in the spectrum of two views each lives.

python -m experiments.captured_energy --output=out SimCLR=runs/seven/simclr MAE=runs/seven/mae

Workdirs of runs on the multitask images. `--images` of them are drawn anew and rendered, two views each as in training,
and embedded by the last checkpoint. See `dnc.geometry.captured` and `dnc.geometry.energy_spectrum`. Of each class one
half of the first views gives B and the whitening of every pair of classes; the other half is whitened with it, and
directional CDNV and the two-class error of nearest centers from m shots are measured: the law says (1 - B) / (4 B) of
the first, the bound limits the second. Both are of the first `--components` principal components: whitening n samples
in r dimensions adds about r / 2n to directional CDNV, which would hide a small law in all of them. The box is that of
the four factors, each split into two halves of its classes.
Writes captured_energy.json, .md and .svg.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from etils import epath
from flax import nnx
from matplotlib.figure import Figure

import dnc
from dnc import distributed
from dnc.data.multitask.render import FACTORS
from dnc.geometry.captured import box, captured_energy
from dnc.geometry.energy_spectrum import view_spectrum
from dnc.geometry.moments import ClassMoments
from dnc.report import style
from dnc.training.checkpoint import Checkpoints
from dnc.training.run_encoder import load_run
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_IMAGES = flags.DEFINE_integer("images", 60_000, "Images of each run, drawn anew.", lower_bound=20_000)

_COMPONENTS = flags.DEFINE_integer("components", 16, "Principal components that are whitened.", lower_bound=2)

BATCH = 480
SHOTS = (10, 100, 1000)
REPEATS = 20
LEAST = 1e-5  # of the largest component's variance
MOST_ENERGY = 0.9  # the share of a factor's energy whose place in the spectrum is told


def main(argv: list[str]) -> None:
    runs = dict(argument.split("=", 1) for argument in argv[1:] if "=" in argument)
    if not runs or len(runs) < len(argv) - 1:
        raise app.UsageError("give NAME=WORKDIR, once for each run")
    rows, boxes, curves = [], [], {}
    for name, workdir in runs.items():
        first, second, labels = embedded_views(epath.Path(workdir), _IMAGES.value)
        first, second = principal_components(first, second)
        spectrum = view_spectrum(first, second)
        few = first[:, : _COMPONENTS.value]
        curves[name] = {task: spectrum.energy(first, y, len(FACTORS[task])).tolist() for task, y in labels.items()}
        for task, y in labels.items():
            rows.append({"encoder": name, "factor": task} | measured(few, y, len(FACTORS[task])))
            rows[-1]["directions for 90%"] = directions(curves[name][task])
            print(rows[-1], flush=True)
        halves = np.stack([np.where(labels[task] < len(FACTORS[task]) / 2, -1, 1) for task in FACTORS], axis=1)
        found = box(first, halves)
        sides = ", ".join(f"{side:.2f}" for side in found.sides)
        boxes.append([name, sides, f"{found.deviation:.3f}", f"{found.bound:.3f}"])
        save(rows, boxes, curves)  # of the encoders so far


def save(rows: Sequence[dict[str, Any]], boxes: Sequence[list[str]], curves: Mapping[str, Any]) -> None:
    cells = ([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)
    lines = [
        *common.table(list(rows[0]), cells),
        "",
        *common.table(["encoder", "half-sides", "deviation", "bound"], boxes),
    ]
    settings = {"images": _IMAGES.value, "components": _COMPONENTS.value}
    record = {"rows": rows, "curves": curves, "boxes": boxes, **settings, **common.machine()}
    with style.theme():
        picture = draw(curves)
    common.save(_OUTPUT.value, "captured_energy", record, lines, picture.svg)


def embedded_views(workdir: epath.Path, images: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Features [n, d] of two views of fresh images by the run's last checkpoint, and the first view's labels."""
    training, mesh = load_run(workdir), distributed.make_mesh()
    graphdef, abstract = training.abstract(mesh)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(abstract, checkpoints.all_steps()[-1]).state
    checkpoints.close()

    @jax.jit
    def embed(state: Any, index: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, Mapping[str, jax.Array]]:
        batch = training.data.make_views({"index": index}, key)
        encoder = nnx.merge(graphdef, state.params, state.rest, copy=True).encoder
        first, second = (encoder(view, train=False) for view in batch["views"][:2])
        return first, second, batch["labels"]

    parts = []
    for start in range(0, images, BATCH):
        index = jnp.arange(start, start + BATCH, dtype=jnp.int32) + 10_000_000  # images that training has not seen
        parts.append(jax.device_get(embed(state, index, jax.random.key(17))))
    first, second = (np.concatenate([part[side] for part in parts])[:images] for side in (0, 1))
    labels = {task: np.concatenate([part[2][task] for part in parts])[:images] for task in FACTORS}
    return first, second, labels


def principal_components(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of both views by the first's, largest first, without those of less than LEAST of the largest one's variance."""
    mean = first.mean(axis=0, dtype=np.float64)
    centered = first - mean
    values, vectors = np.linalg.eigh(centered.T @ centered)
    axes = vectors[:, values > LEAST * values[-1]][:, ::-1]
    return (centered @ axes).astype(np.float32), ((second - mean) @ axes).astype(np.float32)


def measured(features: np.ndarray, codes: np.ndarray, k: int) -> dict[str, Any]:
    """Numbers of one labeling: B and the law of one half of the samples, what is measured of the other."""
    first = np.zeros(len(codes), bool)
    for c in range(k):
        rows = np.random.default_rng(c).permutation(np.flatnonzero(codes == c))
        first[rows[: len(rows) // 2]] = True
    energy = captured_energy(ClassMoments.from_batch(features[first], codes[first], k))
    raw = np.asarray(dnc.pair_geometry(features[~first], codes[~first], k).directional_cdnv)
    pairs = [(i, j) for i in range(k) for j in range(i)]
    directional, error = zip(*(of_pair(features, codes, first, pair) for pair in pairs), strict=True)
    at = tuple(np.array(pairs).T)
    law, bound = energy.directional_cdnv[at], energy.error_bound(SHOTS)[:, *at].T
    return {
        "B of pairs": f"{energy.per_pair[at].min():.3f} to {energy.per_pair[at].max():.3f}",
        "B of the labeling": energy.whole,
        "law": float(law.mean()),
        "measured, whitened": float(np.mean(directional)),
        "off": float(np.mean(np.abs(np.array(directional) / law - 1))),
        "not whitened": float(np.mean((raw[at] + raw[at[::-1]]) / 2)),
        f"bound at {' / '.join(map(str, SHOTS))}": " / ".join(f"{x:.3f}" for x in bound.mean(axis=0)),
        "error": " / ".join(f"{x:.3f}" for x in np.mean(error, axis=0)),
        "above": int(np.sum(np.array(error) > bound)),
    }


def of_pair(
    features: np.ndarray, codes: np.ndarray, first: np.ndarray, pair: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """Directional CDNV and errors of one half in coordinates that the other half whitens."""
    parts = {
        half: [features[(codes == c) & (first == half)].astype(np.float64) for c in pair] for half in (True, False)
    }
    means = [x.mean(axis=0) for x in parts[True]]
    within = np.mean([np.cov(x.T, ddof=0) for x in parts[True]], axis=0)
    total = within + np.outer(means[0] - means[1], means[0] - means[1]) / 4
    values, vectors = np.linalg.eigh(total)
    least = min(map(len, parts[False]))  # as many of each class: one compiled program for nearly all pairs
    least -= least % 100
    white = [
        ((x[:least] - np.mean(means, axis=0)) @ vectors / np.sqrt(values)).astype(np.float32) for x in parts[False]
    ]
    x, y = np.concatenate(white), np.repeat(np.arange(2, dtype=np.int32), least)
    w = np.asarray(dnc.pair_geometry(x, y, 2).directional_cdnv)
    error = dnc.few_shot_error(jax.random.key(0), x, y, SHOTS, REPEATS, num_classes=2)
    return float((w[0, 1] + w[1, 0]) / 2), np.asarray(error.mean)


def directions(energy: Sequence[float]) -> int:
    """How many of the spectrum's directions hold `MOST_ENERGY` of the factor's energy."""
    return int(np.argmax(np.array(energy) >= MOST_ENERGY * energy[-1])) + 1


def draw(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> style.Picture:
    """B_r against r, a panel for each encoder and a line for each factor."""
    columns = min(len(curves), 4)
    rows = -(-len(curves) // columns)
    size = (2.55 * columns, 2.35 * rows)
    figure = Figure(figsize=size)
    for place, (name, tasks) in enumerate(curves.items()):
        part = (place % columns / columns, 1 - (place // columns + 1) / rows, 1 / columns, 1 / rows)
        axes = figure.add_axes((part[0] + 0.17 / columns, part[1] + 0.2 / rows, 0.7 / columns, 0.64 / rows))
        figure.text(part[0] + 0.03 / columns, part[1] + 0.91 / rows, name, fontsize=9)
        for index, (task, energy) in enumerate(tasks.items()):
            axes.plot(np.arange(1, len(energy) + 1), energy, color=style.task_style(index)["color"], label=task)
        axes.set_xscale("log", base=2)
        axes.set_xlim(1, max(map(len, tasks.values())))
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("directions r")
        axes.set_ylabel("B_r" if place % columns == 0 else "")
        if place == 0:
            axes.legend(frameon=False, fontsize=7, loc="lower right")
    ends = "; ".join(
        f"{name}: " + ", ".join(f"{task} {energy[-1]:.2f}" for task, energy in tasks.items())
        for name, tasks in curves.items()
    )
    return style.render(figure, "captured_energy", f"Energy of each factor in the first r directions. All: {ends}")


if __name__ == "__main__":
    app.run(main)
