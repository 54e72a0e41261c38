"""Weak scaling on TPU slices, from the compiler alone: what a chip holds, computes and exchanges as chips are added.

JAX_PLATFORMS=cpu python -m experiments.scaling.weak --output=experiments/results/scaling    # an hour, needs dnc[tpu]

SimCLR and VICReg with ResNet-50 at 224 pixels, 32 images a chip, bfloat16, and all-pairs geometry of ImageNet-1k and
ImageNet-21k sized features. Every program is compiled for every slice; memory, operations and collectives are the
compiled program's, times are rooflines. Continues where it stopped; writes scaling.json, scaling.md and scaling.svg.

The newer generation is v5p: libtpu 0.0.42.1 crashes on the SimCLR step for v6e:8x8 (a compiler pass recurses until it
overflows, in three of three attempts).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from matplotlib.figure import Figure

from configs import simclr_multitask, vicreg_multitask
from dnc.data.images import ImageTraining
from dnc.data.sources.arrays import ArrayImages
from dnc.data.views.augment import Augmentation, Views
from dnc.training import ahead_of_time
from dnc.training.build import Training, build
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)

SLICES = ("v5e:2x4", "v5e:8x8", "v5e:16x16", "v5p:4x4x4")
IMAGES_PER_CHIP = 32
GEOMETRIES = {
    "geometry of ImageNet-1k": (1_281_167, 2048, 1000),
    "geometry of ImageNet-21k": (14_000_000, 1024, 21_841),
}


def resnet50(name: str, chips: int) -> Training:
    """A paper-sized run, on images that are never made."""
    config = {"simclr": simclr_multitask, "vicreg": vicreg_multitask}[name].get_config()
    widths = {"simclr": (2048, 128), "vicreg": (8192, 8192, 8192)}[name]
    changes = {
        "model.depth": 50,
        "model.stem": "imagenet",
        "model.width": 64,
        "model.dtype": "bfloat16",
        "objective.widths": widths,
        "train.batch_size": IMAGES_PER_CHIP * chips,
    }
    config.update_from_flattened_dict(changes)
    config.data.num_examples = IMAGES_PER_CHIP * chips
    images = ArrayImages(
        np.zeros((2, 224, 224, 3), np.uint8), {"class": np.array([0, 1], np.int32)}, {"class": ["a", "b"]}
    )
    augmentation = Augmentation(blur=0.5)
    data = ImageTraining(images, images, Views((augmentation, augmentation)))
    return dataclasses.replace(build(config), data=data)


def geometry(size: tuple[int, int, int], mesh: Mesh) -> ahead_of_time.Program:
    n, d, k = size
    return ahead_of_time.geometry_program(mesh, -(-n // mesh.size) * mesh.size, d, k, overlap="none")


PROGRAMS: dict[str, Callable[[Mesh], ahead_of_time.Program]] = {
    name: lambda mesh, name=name: ahead_of_time.step_program(resnet50(name, mesh.size), mesh)
    for name in ("simclr", "vicreg")
} | {name: lambda mesh, size=size: geometry(size, mesh) for name, size in GEOMETRIES.items()}


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    rows: list[dict[str, Any]] = common.saved(_OUTPUT.value, "scaling", [])
    for topology in SLICES:
        mesh = ahead_of_time.topology_mesh(topology)
        for name, compile_for in PROGRAMS.items():
            if any(row["slice"] == topology and row["program"] == name for row in rows):
                continue
            row = {"slice": topology, "program": name, **_measured(compile_for, mesh, topology)}
            rows.append(row)
            common.save(_OUTPUT.value, "scaling", rows)
            print(row, flush=True)
    common.save(_OUTPUT.value, "scaling", rows, _table(rows))
    _figure(rows, pathlib.Path(_OUTPUT.value) / "scaling.svg")


def _measured(compile_for: Callable[[Mesh], ahead_of_time.Program], mesh: Mesh, topology: str) -> dict[str, Any]:
    """The numbers of one program, or why the compiler refused it."""
    chip = ahead_of_time.chip_of(topology)
    try:
        program = compile_for(mesh)
    except jax.errors.JaxRuntimeError as error:
        return {"chips": mesh.size, "refused": str(error).splitlines()[0][:300]}
    return {
        "chips": mesh.size,
        "memory_gb": program.memory / 1e9,
        "temporaries_gb": program.temporaries / 1e9,
        "gflop": program.flops / 1e9,
        "accessed_gb": program.bytes_accessed / 1e9,
        "collectives": {kind: {"count": n, "mb": size / 1e6} for kind, (n, size) in program.collectives.items()},
        "sent_mb": program.exchanged / 1e6,
        "estimate_ms": 1e3 * program.seconds(chip),
    }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    head = ["program", "slice", "HBM GB", "temporaries GB", "GFLOP", "accessed GB", "collectives", "sent MB"]
    cells = []
    for row in sorted(rows, key=lambda row: (row["program"], row["slice"].split(":")[0], row["chips"])):
        cells.append([row["program"], row["slice"]])
        if "refused" in row:
            cells[-1] += [f"does not fit: {row['refused']}", *[""] * 6]
            continue
        kinds = (f"{moved['count']} {kind} ({moved['mb']:,.1f} MB)" for kind, moved in row["collectives"].items())
        cells[-1] += (f"{row[key]:,.2f}" for key in ("memory_gb", "temporaries_gb", "gflop", "accessed_gb"))
        cells[-1] += [", ".join(kinds), f"{row['sent_mb']:,.1f}", f"{row['estimate_ms']:,.2f}"]
    return [
        *common.table([*head, "estimate ms"], cells),
        "",
        "Per chip. HBM, operations and collectives: the compiled program's; of geometry, which",
        "loops over blocks, operations and bytes are the leading terms. Estimate: roofline, not measured.",
    ]


def _figure(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (key, title) in zip(
        figure.subplots(1, 3),
        (("gflop", "GFLOP a chip"), ("memory_gb", "HBM a chip, GB"), ("sent_mb", "sent by a chip, MB")),
        strict=True,
    ):
        for name in ("simclr", "vicreg"):
            for generation, style in (("v5e", "o-"), ("v5p", "s--")):
                chosen = [r for r in rows if r["program"] == name and r["slice"].startswith(generation) and key in r]
                if chosen:
                    values = [r[key] for r in chosen]
                    axes.plot([r["chips"] for r in chosen], values, style, label=f"{name}, {generation}")
        axes.set(xscale="log", xlabel="chips", title=title, ylim=(0, 1.1 * axes.dataLim.ymax))
        axes.set_xticks([8, 64, 256], ["8", "64", "256"])
        axes.minorticks_off()
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    common.main(main)
