"""Views per second of SimCLR's recipe: the jitted program on this machine's device against torchvision's transforms.

python -m experiments.benchmarks.augment --torch_python=PATH --output=experiments/results/benchmarks    # 2 minutes

PATH is a Python with torch and torchvision, which are no dependencies of this project; without it, our rates alone.
Both make two standardized views of the same photographs, cut to 32 and 224 pixels: we in batches of 128 from bytes in
memory, they in a DataLoader with 2 workers, from Pillow images and from tensors. Rounds alternate; medians count.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dnc.data.views.augment import standardize_pixels
from dnc.data.views.recipes import choose_views
from experiments import common
from experiments.benchmarks.photographs import photographs
from experiments.benchmarks.timing import asked

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_TORCH_PYTHON = flags.DEFINE_string("torch_python", None, "A Python interpreter with torch and torchvision.")

BATCH, ROUNDS = 128, 3
KERNELS = {32: 3, 224: 23}  # SimCLR's blur, a tenth of the image made odd
VIEWS = {32: 4_096, 224: 512}  # of a round


def main() -> None:
    record: dict[str, Any] = common.machine(jax=jax.__version__)
    record["views_per_second"] = {str(size): compare(size) for size in KERNELS}
    note = f"SimCLR's recipe, two views of every image, {BATCH} images a batch."
    rows = (
        [size, name, f"{rate:,.0f}", f"{rates['dnc'] / rate:.2f}"]
        for size, rates in record["views_per_second"].items()
        for name, rate in rates.items()
    )
    lines = [f"{record['machine']}, {record['date']}; {note}", ""]
    lines += common.table(["pixels", "program", "views a second", "time, in dnc's"], rows)
    common.save(_OUTPUT.value, "augment", record, lines)


def compare(size: int) -> dict[str, float]:
    """Views per second of every program, each the median of rounds in which all run in turn."""
    images = photographs(size)
    with ExitStack() as stack:
        programs = {"dnc": ours(images)}
        if _TORCH_PYTHON.value:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            np.save(folder / "images.npy", images)
            script = pathlib.Path(__file__).with_name("augment_torchvision.py")
            arguments = [folder / "images.npy", KERNELS[size], VIEWS[size]]
            ask = stack.enter_context(asked(str(_TORCH_PYTHON.value), script, *arguments))
            programs |= {
                f"torchvision, {backend}": lambda backend=backend: ask(backend) for backend in ("pil", "tensor")
            }
        rates = [{name: program() for name, program in programs.items()} for _ in range(ROUNDS)]
    return {name: float(np.median([per_round[name] for per_round in rates])) for name in programs}


def ours(images: np.ndarray) -> Callable[[], float]:
    size = images.shape[1]
    views = choose_views(recipe="simclr", size=size, blur_kernel=KERNELS[size])

    @jax.jit
    def show(key: jax.Array, images: jax.Array) -> jax.Array:
        shown = views(jax.random.split(key, len(images)), images.astype(jnp.float32) / 255.0)
        return standardize_pixels(shown["views"])

    on_device = jnp.asarray(images)
    jax.block_until_ready(show(jax.random.key(0), on_device))

    def rate() -> float:
        batches = max(1, VIEWS[size] // (2 * BATCH))
        started = time.perf_counter()
        for key in jax.random.split(jax.random.key(1), batches):
            jax.block_until_ready(show(key, on_device))
        return 2 * BATCH * batches / (time.perf_counter() - started)

    return rate


if __name__ == "__main__":
    common.main(main)
