"""What Muon costs: a SimCLR step with it over the same step with AdamW, views given, in one process and in turn.

python -m experiments.benchmarks.optimizers --output=experiments/results/benchmarks

The networks are those of `experiments.benchmarks.training`, whose flags these are too. Every device updates all
parameters, so that Muon weighs the more, the fewer examples a device has. Prints and writes optimizers.json and .md.
"""

import dataclasses
import math

import jax
import numpy as np
import optax
from absl import flags

from dnc import distributed
from dnc.models import ResNet
from dnc.training.optimizers import make_optimizer
from experiments import common
from experiments.benchmarks.timing import alternating
from experiments.benchmarks.training import ON_CPU, ON_GPU, jax_side

QUICKSTART = dataclasses.replace(
    ON_CPU["ResNet-18, width 16, 32 px"],
    jax_encoder=lambda dtype, rngs: ResNet(10, "cifar_s2", 16, dtype=dtype, rngs=rngs),
)
ITERATIONS = (5, 3)


def main() -> None:
    options = flags.FLAGS
    cases = ON_GPU if common.accelerator() else {"ResNet-10, the quickstart's, 32 px": QUICKSTART} | ON_CPU
    distributed.initialize(batch_size=math.gcd(*(case.examples for case in cases.values())))
    rows = []
    for name, case in cases.items():
        views = np.random.default_rng(0).standard_normal((2, case.examples, case.size, case.size, 3), np.float32)
        optimizers = {"AdamW": make_optimizer("adamw", 1e-3)}
        optimizers |= {f"Muon, {n} iterations": make_optimizer("muon", 1e-3, iterations=n) for n in ITERATIONS}
        for precision in case.precisions:
            steps = [jax_side(case, views, precision, optimizer)[0] for optimizer in optimizers.values()]
            times = alternating(steps, options.rounds)
            seconds = dict(zip(optimizers, (time / options.steps for time in times), strict=True))
            rows.append({"network": name, "precision": precision, "examples": case.examples, "seconds": seconds})
            print(rows[-1], flush=True)
    record = {**common.machine(jax=jax.__version__, optax=optax.__version__), "cases": rows}
    head = ["network", "precision", "examples a step", "AdamW, ms"]
    head += [f"Muon, {n} iterations : AdamW" for n in ITERATIONS]
    lines = [f"{record['machine']}, {record['date']}; median of {options.rounds} rounds.", ""]
    lines += common.table(head, map(_row, rows))
    common.save(options.output, common.beside("optimizers"), record, lines)


def _row(row: dict) -> list[str]:
    adamw, *others = row["seconds"].values()
    ratios = [f"{seconds / adamw:.2f}" for seconds in others]
    return [row["network"], row["precision"], str(row["examples"]), f"{1000 * adamw:.0f}", *ratios]


if __name__ == "__main__":
    common.main(main)
