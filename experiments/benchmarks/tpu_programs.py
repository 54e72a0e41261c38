"""Geometry compiled for TPUs, in steps that fit a CPU's cache and in steps for accelerators: read, not run.

pip install '.[train,tpu]'
python -m experiments.benchmarks.tpu_programs --output=experiments/results/benchmarks     # no TPU needed

For each size of `dnc.geometry.sizes`: the loops of the compiled program, how often their bodies run on a chip, the
product with all class means in one step, its time at the chip's peak rate (a float32 product with precision="highest"
is six passes in bfloat16) beside that of reading its rows from HBM once, and the memory for temporaries. Peak rates are
the vendor's; nothing here is a measured time.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dnc import distributed
from dnc.geometry import sizes
from dnc.geometry.measure import pair_geometry
from dnc.training.ahead_of_time import CHIPS, topology_mesh
from experiments import common
from experiments.benchmarks.clusters import IMAGENET
from experiments.benchmarks.steps import sequential_steps

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_TOPOLOGIES = flags.DEFINE_list("topologies", ["v5e:2x2", "v5p:2x2x1"], "Slices to compile for.")

CASES = (((50_000, 100, 768), "exact"), (IMAGENET, "none"))
PASSES = 6  # of a float32 product with precision="highest", in bfloat16


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    rows = [
        _row(topology, *shape, overlap, name, chosen)
        for topology in _TOPOLOGIES.value or ()
        for shape, overlap in CASES
        for name, chosen in (("CPU's", sizes.CPU), ("accelerator's", sizes.ACCELERATOR))
    ]
    record = common.machine(jax=jax.__version__) | {"rows": rows}
    cells = ([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)
    lines = [f"jax {jax.__version__}, {record['date']}: compiled, not run.", ""]
    common.save(_OUTPUT.value, "tpu_programs", record, lines + common.table(list(rows[0]), cells))


def _row(topology: str, n: int, k: int, d: int, overlap: str, name: str, chosen: sizes.Sizes) -> dict[str, Any]:
    mesh, chip = topology_mesh(topology), CHIPS[topology.partition(":")[0]]
    n -= n % mesh.size
    sharding = distributed.batch_sharding(mesh)
    x = jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=sharding)
    y = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=sharding)
    jax.clear_caches()  # a program that was traced with other sizes would be taken again
    with sizes.compiled_for("cpu" if chosen is sizes.CPU else "tpu"):
        measure = jax.jit(lambda x, y: pair_geometry(x, y, k, overlap=overlap, parts=mesh.size))
        compiled = measure.lower(x, y).compile()
    text, memory = compiled.as_text() or "", compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("the compiler reports no memory: is libtpu the version that jax[tpu] requires?")
    steps = sequential_steps(np.full(k, n // mesh.size // k), d, overlap, chosen)
    at_once = min(chosen.rows, n // mesh.size)
    product = 2 * at_once * d * k
    compute, reading = PASSES * product / chip.flops, 4 * at_once * d / chip.bandwidth
    row = {
        "slice": topology,
        "n": n,
        "k": k,
        "d": d,
        "overlap": overlap,
        "steps": name,
        "loops in the program": len(re.findall(r" while\(", text)),
        **steps,
        "GFLOP of a step's product": product / 1e9,
        "µs of it at peak": 1e6 * compute,
        "µs of reading its rows": 1e6 * reading,
        "its share of both": compute / (compute + reading),
        "temporaries, MB": memory.temp_size_in_bytes / 1e6,
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    common.main(main)
