"""A whole SimCLR step, from images in memory to updated parameters, against lightly and stable-pretraining.

JAX_PLATFORMS=cpu python -m experiments.benchmarks.whole_step --lightly_python=PATH --stable_pretraining_python=PATH \
  --output=experiments/results/benchmarks    # 8 minutes

The first PATH is a Python with torch, torchvision and lightly 1.6, the second one with stable-pretraining[jax] 0.1.8,
neither a dependency of this project; without its flag a program is left out. All train a ResNet-18 (3 x 3 stem, width
64) with SimCLR's views of 64 images of 32 pixels, NT-Xent, AdamW, float32: we as `dnc train` does, reading, views and
update; lightly with its SimCLRTransform in a DataLoader of 2 workers, its projection head and its loss, in
channels-last format; stable-pretraining with its trainer for JAX and the views that it makes there, which are simpler.
Rounds alternate; medians count.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx

from configs import simclr_cifar10
from dnc import distributed
from dnc.data.images import ImageTraining
from dnc.data.pipeline import batches
from dnc.data.sources.arrays import ArrayImages
from dnc.data.views.recipes import choose_views
from dnc.training.build import make_encoder, make_objective, make_optimizer, root_key
from dnc.training.state import TrainState
from dnc.training.step import make_step
from experiments import common
from experiments.benchmarks.photographs import photographs
from experiments.benchmarks.timing import asked

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_OTHERS = {
    "lightly": flags.DEFINE_string("lightly_python", None, "A Python with torch, torchvision and lightly."),
    "stable_pretraining": flags.DEFINE_string("stable_pretraining_python", None, "One with stable-pretraining[jax]."),
}

SIZE, BATCH, STEPS, ROUNDS = 32, 64, 5, 3


def main() -> None:
    distributed.initialize(batch_size=BATCH)
    images = np.tile(photographs(SIZE), (8, 1, 1, 1))
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "images.npy", images)
        programs: dict[str, Callable[[], float]] = {"dnc": ours(images)}
        for name, python in _OTHERS.items():
            if python.value:
                script = pathlib.Path(__file__).with_name(f"whole_step_{name}.py")
                ask = stack.enter_context(asked(python.value, script, folder / "images.npy", BATCH, STEPS))
                programs[name] = partial(ask, "round")
        for program in programs.values():
            program()  # compiles, and starts workers
        rates = [{name: program() for name, program in programs.items()} for _ in range(ROUNDS)]
    medians = {name: float(np.median([per_round[name] for per_round in rates])) for name in programs}
    record: dict[str, Any] = common.machine(jax=jax.__version__) | {"examples_per_second": medians}
    lines = [f"{record['machine']}, {record['date']}; ResNet-18, {SIZE} px, {BATCH} examples a step.", ""]
    rows = ([name, f"{rate:.1f}", f"{medians['dnc'] / rate:.2f}"] for name, rate in medians.items())
    lines += common.table(["program", "examples a second", "dnc : program"], rows)
    common.save(_OUTPUT.value, "whole_step", record, lines)


def ours(images: np.ndarray) -> Callable[[], float]:
    """Examples per second of the loop of `dnc train`, without its logging."""
    config: Any = simclr_cifar10.get_config()
    config.model.dtype = "float32"
    config.objective.widths = (512, 128)
    source = ArrayImages(images, {"class": np.arange(len(images)) % 2}, {"class": ["a", "b"]})
    data = ImageTraining(source, source, choose_views(recipe="simclr_cifar"))
    mesh = distributed.make_mesh()
    rngs = nnx.Rngs(0)
    objective = make_objective(config.objective)
    optimizer = make_optimizer("adamw", 1e-3, weight_decay=1e-4)
    graphdef, state = TrainState.create(objective.network(make_encoder(config.model)(rngs=rngs), rngs=rngs), optimizer)
    state = jax.device_put(state, distributed.replicated(mesh))
    step = make_step(graphdef, objective, optimizer, data.make_views, root_key(config), 1000)
    examples = batches(data.source(), BATCH, seed=0)

    def rate() -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(STEPS):
            _, batch = next(examples)
            state, metrics = step(state, distributed.shard_batch(mesh, batch))
        jax.block_until_ready(metrics)
        return STEPS * BATCH / (time.perf_counter() - started)

    return rate


if __name__ == "__main__":
    common.main(main)
