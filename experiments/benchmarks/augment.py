"""Views a second of SimCLR's recipe: the jitted program on this machine's device against torchvision's transforms.

python -m experiments.benchmarks.augment --torch_python=PATH --output=experiments/results/benchmarks    # 2 minutes

PATH is a Python with torch and torchvision, which are no dependencies of this project; without it, our rates alone.
Both make two standardized views of the same photographs, cut to 32 and 224 pixels: we in batches of 128 from bytes in
memory, they in a DataLoader with 2 workers, from Pillow images and from tensors. Rounds alternate; medians count.
"""

import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from dnc.data.views.augment import standardize_pixels
from dnc.data.views.recipes import choose_views
from experiments.benchmarks.photographs import photographs
from experiments.benchmarks.timing import asked

_OUTPUT = flags.DEFINE_string("output", None, "Folder for augment.json and augment.md.", required=True)
_TORCH_PYTHON = flags.DEFINE_string("torch_python", None, "A Python interpreter with torch and torchvision.")

BATCH, ROUNDS = 128, 3
KERNELS = {32: 3, 224: 23}  # SimCLR's blur, a tenth of the image made odd
VIEWS = {32: 4_096, 224: 512}  # of a round


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, jax {jax.__version__}"
    record: dict[str, Any] = {"machine": machine, "date": time.strftime("%Y-%m-%d")}
    record["views_per_second"] = {str(size): compare(size) for size in KERNELS}
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "augment.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "augment.md").write_text(table := _table(record))
    print(table)


def compare(size: int) -> dict[str, float]:
    """Views a second of every program, each the median of rounds in which all run in turn."""
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
    return {name: float(np.median([one[name] for one in rates])) for name in programs}


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


def _table(record: dict[str, Any]) -> str:
    lines = [
        f"{record['machine']}, {record['date']}; SimCLR's recipe, two views of every image, {BATCH} images a batch.",
        "",
        "| pixels | program | views a second | time, in dnc's |",
        "|---|---|---|---|",
    ]
    for size, rates in record["views_per_second"].items():
        for name, rate in rates.items():
            lines.append(f"| {size} | {name} | {rate:,.0f} | {rates['dnc'] / rate:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app.run(main)
