"""How long geometry takes against the rows that it handles at once: what to choose for a device.

python -m experiments.benchmarks.blocks --output=experiments/results/benchmarks     # 3 minutes on a GPU

Geometry works in sequential steps, of sizes that `dnc.geometry.sizes` chooses by platform. Here these are replaced,
everything is compiled again, and seconds, sequential steps and the share of the rate of a large
float32 product are written down. All of it is float32 with precision="highest".
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dnc.geometry import sizes
from dnc.geometry.measure import pair_geometry
from experiments import common
from experiments.benchmarks.clusters import IMAGENET, on_device
from experiments.benchmarks.steps import sequential_steps, stored_entries
from experiments.benchmarks.timing import alternating

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Runs of each; the median counts.", lower_bound=1)
_TINY = flags.DEFINE_bool("tiny", False, "Small sizes, to see that it runs.")

SHAPES = ((50_000, 100, 768), IMAGENET)
ROWS = (1024, 8192, 65_536)
PRODUCTS = ((256, 4096), (2048, 4096), (2048, 65_536), (8192, 65_536))  # rows of a class; columns of the Gram matrix


def main() -> None:
    shapes = ((4000, 10, 64),) if _TINY.value else SHAPES
    device = common.accelerator() or "CPU"
    peak = _peak(512 if _TINY.value else 8192)
    print(f"large float32 product: {peak:.1f} TFLOP/s", flush=True)
    rows: list[dict[str, Any]] = []
    for n, k, d in shapes:
        x, y = on_device(n, k, d)
        for at_once in ROWS:
            rows.append(_timed(device, peak, x, y, k, "none", at_once, 256, 4096))
        overlaps = ("exact",) if n == shapes[0][0] else ("cauchy_schwarz",)
        for overlap in overlaps:
            for products, chunk in PRODUCTS:
                if overlap == "exact" or chunk == 4096:
                    rows.append(_timed(device, peak, x, y, k, overlap, ROWS[-1], products, chunk))
    record: dict[str, Any] = common.machine(jax=jax.__version__) | {"product_teraflops": peak, "rows": rows}
    lines = [f"{record['machine']}, {record['date']}; a large float32 product runs at {peak:.1f} TFLOP/s.", ""]
    cells = ([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)
    common.save(_OUTPUT.value, common.beside("blocks"), record, lines + common.table(list(rows[0]), cells))


def _timed(
    device: str, peak: float, x: jax.Array, y: jax.Array, k: int, overlap: str, at_once: int, products: int, chunk: int
) -> dict[str, Any]:
    replaced = dataclasses.replace(sizes.sizes(), rows=at_once, product_rows=products, columns=chunk)
    sizes.CPU = sizes.ACCELERATOR = replaced
    jax.clear_caches()
    n, d = x.shape
    (seconds,) = alternating([functools.partial(pair_geometry, x, y, k, overlap=overlap)], _ROUNDS.value)
    steps, stored = sequential_steps(np.bincount(np.asarray(y), minlength=k), d, overlap, replaced), stored_entries(d)
    operations = 2 * n * k * d + 2 * n * d  # scores, and the means
    if overlap != "none":
        operations += 2 * n * stored + (2 * k * k * stored if overlap == "exact" else 0)
    row = {
        "device": device,
        "n": n,
        "k": k,
        "d": d,
        "overlap": overlap,
        "rows at once": at_once,
        "rows of products": products,
        "columns of Gram": chunk,
        **steps,
        "ms": 1e3 * seconds,
        "TFLOP/s": operations / seconds / 1e12,
        "of a large product": operations / seconds / 1e12 / peak,
    }
    print(row, flush=True)
    return row


def _peak(size: int) -> float:
    """TFLOP/s of a square float32 product with precision="highest"."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in (0, 1))
    run = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest"))
    (seconds,) = alternating([lambda: run(a, b)])
    return 2 * size**3 / seconds / 1e12


if __name__ == "__main__":
    common.main(main)
