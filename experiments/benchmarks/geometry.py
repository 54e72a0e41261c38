"""How long all-pairs geometry takes, against one matrix product and against a loop over class pairs.

python -m experiments.benchmarks.geometry --output=experiments/results/benchmarks            # minutes
python -m experiments.benchmarks.geometry --output=... --imagenet=runs/imagenet             # 2 GB of disk, more minutes

Every ratio comes from one process in which the two alternate; a table and a figure are written. On an accelerator the
sizes are larger, ImageNet's features are measured in its memory too, and the files are named after it. With --imagenet,
float16 features of ImageNet's size are written to a memory-mapped file, streamed through a bare product and through
`stream_pair_geometry`, each in a process of its own, whose peak memory is recorded.
"""

import functools
import json
import pathlib
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from dnc.certificates import certificate
from dnc.geometry.measure import pair_geometry
from dnc.geometry.stream import ArrayBatches, stream_pair_geometry
from experiments import common
from experiments.benchmarks.clusters import IMAGENET, SIZES, features_of, on_device
from experiments.benchmarks.timing import alternating

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_IMAGENET = flags.DEFINE_string(
    "imagenet", None, "Folder for 2 GB of made features; measures the streamed geometry too."
)
_STAGE = flags.DEFINE_enum("stage", None, ["product", "geometry"], "Internal: one streamed measurement.")

N, K, D = 50_000, 100, 768
ON_ACCELERATOR = 8  # times as many samples in the sweeps
SHOTS = (1, 2, 5, 10, 20, 50, 100, 200)


def main() -> None:
    if _STAGE.value:
        _streamed(pathlib.Path(str(_IMAGENET.value)), _STAGE.value)
        return
    record: dict[str, Any] = common.machine(jax=jax.__version__)
    record |= {"device": common.accelerator() or "CPU", "ratios": _ratios()}
    record["class_sizes"] = _class_sizes()
    if common.accelerator():
        record["in_memory"] = _in_memory()
    record["scaling"] = _scaling()
    if _IMAGENET.value:
        record["imagenet"] = _imagenet(pathlib.Path(_IMAGENET.value))
    name = common.beside("geometry")
    common.save(_OUTPUT.value, name, record, _tables(record))
    _figure(record["scaling"], pathlib.Path(_OUTPUT.value) / f"{name}.svg")


@jax.jit
def product(features: jax.Array, means: jax.Array) -> jax.Array:
    return jnp.dot(features, means.T, precision="highest")


def pair_loop(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Directional CDNV with a loop over pairs, as the paper's code has it; classes are taken apart beforehand."""
    classes = [features[labels == c] for c in range(num_classes)]
    means = [z.mean(axis=0) for z in classes]
    result = np.full((num_classes, num_classes), np.nan)
    for i in range(num_classes):
        for j in range(num_classes):
            if i != j:
                axis = means[j] - means[i]
                distance = np.linalg.norm(axis)
                result[i, j] = ((classes[i] - means[i]) @ (axis / distance)).var() / distance**2
    return result


def _ratios() -> dict[str, float]:
    x, y = features_of(N, K, D)
    means = x[:K]

    def certified() -> jax.Array:
        return certificate("exact_cantelli", pair_geometry(x, y, K, overlap="exact"), SHOTS).per_pair

    collapse = functools.partial(pair_geometry, x, y, K, overlap="none")
    bare, geometry, exact = alternating([functools.partial(product, x, means), collapse, certified])
    started = time.perf_counter()
    expected = pair_loop(np.asarray(x), np.asarray(y), K)
    loop = time.perf_counter() - started
    np.testing.assert_allclose(collapse().directional_cdnv, expected, rtol=1e-3)
    return {
        "product_seconds": bare,
        "pair_geometry": geometry / bare,
        "exact_certificates": exact / bare,
        "pair_loop": loop / bare,
        "loop_over_pair_geometry": loop / geometry,
    }


def _class_sizes() -> dict[str, float]:
    """Collapse of classes of several distributions of sizes, each against the bare product beside it."""
    ratios = {}
    for sizes in SIZES:
        x, y = features_of(N, K, D, sizes=sizes)
        collapse = functools.partial(pair_geometry, x, y, K, overlap="none")
        bare, geometry = alternating([functools.partial(product, x, x[:K]), collapse], rounds=11)
        ratios[sizes] = geometry / bare
    return ratios


def _in_memory() -> dict[str, float]:
    """ImageNet's features in the device's memory: seconds of a bare product, and the others in its time."""
    n, k, d = IMAGENET
    x, y = on_device(n, k, d)
    means = x[:k]

    def certified() -> jax.Array:
        return certificate("exact_cantelli", pair_geometry(x, y, k), SHOTS).per_pair

    functions = [functools.partial(product, x, means), functools.partial(pair_geometry, x, y, k, overlap="none")]
    bare, geometry, certificates = alternating([*functions, certified], rounds=3)
    return {
        "product_seconds": bare,
        "product_teraflops": 2 * n * k * d / bare / 1e12,
        "pair_geometry": geometry / bare,
        "certificates": certificates / bare,
    }


def _scaling() -> dict[str, dict[str, list[float]]]:
    """Seconds of pair_geometry against n, k and d, the others fixed."""
    more = ON_ACCELERATOR if common.accelerator() else 1
    make = on_device if common.accelerator() else features_of
    sweeps = {
        "n": [(more * n, 50, 256) for n in (12_500, 25_000, 50_000, 100_000, 200_000)],
        "k": [(more * 50_000, k, 256) for k in (50, 100, 200, 400)],
        "d": [(more * 25_000, 50, d) for d in (128, 256, 512, 1024)],
    }
    result = {}
    for name, shapes in sweeps.items():
        seconds = []
        for n, k, d in shapes:
            x, y = make(n, k, d)
            seconds += alternating([functools.partial(pair_geometry, x, y, k, overlap="none")], rounds=5)
        sizes = [float(shape["nkd".index(name)]) for shape in shapes]
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        result[name] = {"sizes": sizes, "seconds": seconds, "slope": [slope]}
    return result


def _imagenet(folder: pathlib.Path) -> dict[str, Any]:
    """Each streamed program in its own process, in turn, twice; the faster of two."""
    n, k, d = IMAGENET
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "features.npy"
    if not path.exists():
        rng = np.random.default_rng(0)
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
        labels = rng.permutation(np.arange(n) % k).astype(np.int32)
        centers = rng.standard_normal((k, d), dtype=np.float32)
        for start in range(0, n, 65_536):
            rows = labels[start : start + 65_536]
            file[start : start + len(rows)] = centers[rows] + rng.standard_normal((len(rows), d), dtype=np.float32)
        file.flush()
        np.save(folder / "labels.npy", labels)
    results: dict[str, list[dict[str, float]]] = {"product": [], "geometry": []}
    for _ in range(2):
        for stage, passes in results.items():
            command = [sys.executable, "-m", "experiments.benchmarks.geometry", f"--output={folder}"]
            done = subprocess.run(
                [*command, f"--imagenet={folder}", f"--stage={stage}"], check=True, capture_output=True, text=True
            )
            passes.append(json.loads(done.stdout.splitlines()[-1]))
    best = {stage: min(passes, key=lambda timed: timed["seconds"]) for stage, passes in results.items()}
    return {**best, "ratio": best["geometry"]["seconds"] / best["product"]["seconds"]}


def _streamed(folder: pathlib.Path, stage: str) -> None:
    """Print seconds and peak memory of one pass of the bare product, or of the whole streamed geometry."""
    _, k, d = IMAGENET
    features, labels = np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    means = jnp.asarray(np.random.default_rng(1).standard_normal((k, d), dtype=np.float32))
    half = jax.jit(lambda x, m: jnp.sum(product(x.astype(jnp.float32), m), axis=0))
    batches = ArrayBatches(features, labels)
    compiled_for = (features[: batches.rows], labels[: batches.rows])
    if stage == "product":
        jax.block_until_ready(half(jnp.asarray(compiled_for[0]), means))
        started = time.perf_counter()
        total = jnp.zeros(k)
        for x, _labels in batches:
            total += half(jnp.asarray(x), means)
        jax.block_until_ready(total)
    else:
        stream_pair_geometry([compiled_for], k, overlap="none")
        started = time.perf_counter()
        jax.block_until_ready(stream_pair_geometry(batches, k, overlap="none"))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))


def _tables(record: dict[str, Any]) -> list[str]:
    ratios, device = record["ratios"], record["device"]
    rows = [
        [device, f"bare product ({ratios['product_seconds'] * 1e3:.3g} ms)", "1"],
        [device, '`pair_geometry`, `overlap="none"`', f"{ratios['pair_geometry']:.2f}"],
        [device, f"`exact_cantelli`, all pairs, {len(SHOTS)} shot sizes", f"{ratios['exact_certificates']:.2f}"],
        ["CPU", "loop over class pairs (directional CDNV alone)", f"{ratios['pair_loop']:.1f}"],
    ]
    lines = [f"{record['machine']}, {record['date']}; n = {N:,}, k = {K}, d = {D}, float32.", ""]
    head = ["device", "program", "time, in bare products X Mᵀ"]
    lines += common.table(head, rows)
    by_size = ", ".join(f"{name} {ratio:.2f}" for name, ratio in record["class_sizes"].items())
    lines += ["", f"`pair_geometry` by the sizes of classes: {by_size}."]
    if "in_memory" in record:
        n, k, d = IMAGENET
        large = record["in_memory"]
        bare = f"bare product ({large['product_seconds'] * 1e3:.3g} ms, {large['product_teraflops']:.1f} TFLOP/s)"
        rows = [
            [device, bare, "1"],
            [device, '`pair_geometry`, `overlap="none"`', f"{large['pair_geometry']:.2f}"],
            [
                device,
                f'`exact_cantelli`, `overlap="auto"`, all pairs, {len(SHOTS)} shot sizes',
                f"{large['certificates']:.2f}",
            ],
        ]
        lines += ["", f"In the device's memory: n = {n:,}, k = {k}, d = {d}, float32.", "", *common.table(head, rows)]
    slopes = ", ".join(f"{name} {sweep['slope'][0]:.2f}" for name, sweep in record["scaling"].items())
    lines += ["", f"Slopes of log time against log size: {slopes}."]
    if "imagenet" in record:
        bare, geometry, ratio = (record["imagenet"][key] for key in ("product", "geometry", "ratio"))
        n, k, d = IMAGENET
        lines += [
            "",
            f"Streamed from a float16 memory map, n = {n:,}, k = {k}, d = {d}: bare product "
            f"{bare['seconds']:.1f} s, geometry {geometry['seconds']:.1f} s, {ratio:.2f} times "
            f"as long; peak memory {geometry['peak_gib']:.1f} GiB.",
        ]
    return lines


def _figure(scaling: dict[str, dict[str, list[float]]], path: pathlib.Path) -> None:
    figure = Figure(figsize=(9, 2.8))
    for index, (name, sweep) in enumerate(scaling.items()):
        axes = figure.add_subplot(1, 3, index + 1)
        axes.loglog(sweep["sizes"], sweep["seconds"], "o-", color="#0072B2")
        axes.set_xlabel(name)
        axes.set_title(f"slope {sweep['slope'][0]:.2f}", fontsize=9)
        axes.set_ylabel("seconds" if index == 0 else "")
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    common.main(main)
