"""How long an analysis with everything in its result takes, its page included, and how much memory, for many classes.

python -m experiments.benchmarks.many_classes --output=experiments/results/benchmarks

Each size has a process of its own: a bare product X M^T, then the analysis twice, so that the second compiles nothing.
Seconds are those of the parts that `dnc.analysis` names, and of the whole; memory is the process's peak less what it
was before the analysis. --size=N,K,D instead of the standard ones; may be repeated. Writes many_classes.json and .md.
"""

import json
import logging
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import dnc
from dnc.analysis.progress import LOGGER
from experiments import common
from experiments.benchmarks.clusters import features_of
from experiments.benchmarks.timing import alternating

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_SIZES = flags.DEFINE_multi_string("size", ["50000,1000,256", "50000,1000,768", "50000,100,768"], "N,K,D.")
_STAGE = flags.DEFINE_bool("stage", False, "Internal: measure the only size in this process.")


def main() -> None:
    if _STAGE.value:
        print(json.dumps(_measured(*map(int, (_SIZES.value or [""])[0].split(",")))))
        return
    rows = []
    for size in _SIZES.value or []:
        command = [sys.executable, "-m", "experiments.benchmarks.many_classes", f"--output={_OUTPUT.value}"]
        done = subprocess.run([*command, f"--size={size}", "--stage"], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    record = common.machine(jax=jax.__version__) | {"rows": rows}
    common.save(_OUTPUT.value, common.beside("many_classes"), record, _tables(record))


def _measured(n: int, k: int, d: int) -> dict[str, Any]:
    features, labels = (np.asarray(x) for x in features_of(n, k, d))
    product = jax.jit(lambda x, m: jnp.dot(x, m.T, precision="highest"))
    x = jnp.asarray(features)
    (bare,) = alternating([lambda: product(x, x[:k])])
    del x
    before = _peak()
    runs = [_analysis(features, labels) for _ in range(2)]
    return {
        "n": n,
        "k": k,
        "d": d,
        "product_seconds": bare,
        "first": runs[0],
        "second": runs[1],
        "features_gib": features.nbytes / 2**30,
        "memory_gib": _peak() - before,
    }


def _analysis(features: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Seconds of each part and of the whole, and the bytes of its files."""
    parts = _Parts()
    LOGGER.addHandler(parts)
    LOGGER.setLevel(logging.INFO)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dnc.analyze(features, labels).to_html(pathlib.Path(folder) / "report")
        seconds = time.perf_counter() - started
        sizes = {path.name: path.stat().st_size for path in pathlib.Path(folder, "report").iterdir() if path.is_file()}
    LOGGER.removeHandler(parts)
    return {"seconds": seconds, "parts": parts.seconds, "bytes": sizes}


class _Parts(logging.Handler):
    """Collects what `progress.stage` reports."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._name = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.endswith(" ..."):
            self._name = message.removesuffix(" ...").split(": ")[-1]
        else:
            self.seconds[self._name] = float(message.split()[0])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _tables(record: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{row['n']:,} x {row['d']} in {row['k']:,} classes",
            f"{row['product_seconds']:.2f}",
            *(
                f"{row[run]['seconds']:.0f} s, {row[run]['seconds'] / row['product_seconds']:.0f}x"
                for run in ("first", "second")
            ),
            f"{row['memory_gib']:.2f} ({row['features_gib']:.2f})",
        ]
        for row in record["rows"]
    ]
    head = ["size", "bare product, s", "first analysis", "second", "memory (features), GiB"]
    lines = [f"{record['machine']}, {record['date']}.", "", *common.table(head, rows), ""]
    names = list(record["rows"][0]["second"]["parts"])
    parts = ([name, *(f"{row['second']['parts'].get(name, 0):.1f}" for row in record["rows"])] for name in names)
    return lines + common.table(["part of the second, s", *(row[0] for row in rows)], parts)


if __name__ == "__main__":
    common.main(main)
