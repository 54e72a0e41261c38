"""Does every published recipe fit into a TPU slice? Its training step, compiled for the slice on this machine.

JAX_PLATFORMS=cpu python -m experiments.scaling.fits --output=experiments/results/scaling     # needs dnc[tpu]

Black images stand for ImageNet and for pairs of images and captions: the program does not depend on them. Memory,
operations and collectives are those of the compiled step, per chip; times are rooflines. Continues where it stopped;
writes fits.json and fits.md.
"""

import importlib
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from PIL import Image

from dnc.training import ahead_of_time
from dnc.training.build import build
from experiments import common

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_SLICE = flags.DEFINE_string("slice", "v5e:16x16", "TPUs to compile for.")

IMAGENET = ("simclr_imagenet", "vicreg_imagenet", "mae_imagenet", "dino_imagenet", "ijepa_imagenet")
PAIRS = ("clip_pairs", "siglip_pairs")
IMAGES, SIDE, CANVAS = 8192, 224, 256


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    mesh, chip = ahead_of_time.topology_mesh(_SLICE.value), ahead_of_time.chip_of(_SLICE.value)
    rows: list[dict[str, Any]] = common.saved(_OUTPUT.value, "fits", [])
    for name in IMAGENET + PAIRS:
        if any(row["config"] == name and row["slice"] == _SLICE.value for row in rows):
            continue
        program, batch_size = _compiled(name, mesh)
        row = {
            "config": name,
            "slice": _SLICE.value,
            "batch_size": batch_size,
            "memory_gb": program.memory / 1e9,
            "chip_gb": chip.memory / 1e9,
            "gflop": program.flops / 1e9,
            "collectives_mb": {kind: size / 1e6 for kind, (_, size) in program.collectives.items()},
            "estimate_ms": 1e3 * program.seconds(chip),
        }
        rows.append(row)
        common.save(_OUTPUT.value, "fits", rows)
        print(row, flush=True)
    common.save(_OUTPUT.value, "fits", rows, _table(rows))


def _compiled(name: str, mesh: Mesh) -> tuple[ahead_of_time.Program, int]:
    config: Any = importlib.import_module(f"configs.{name}").get_config()
    with tempfile.TemporaryDirectory() as folder:
        if name in PAIRS:
            config.data.update(_pairs(pathlib.Path(folder), config.train.batch_size))
        else:
            config.data = _images(pathlib.Path(folder)) | {"augmentation": config.data.augmentation}
        return ahead_of_time.step_program(build(config), mesh), config.train.batch_size


def _images(folder: pathlib.Path) -> dict[str, Any]:
    """An ImageNet of black images: one pixel each, stretched to the canvas when they are read."""
    np.savez(folder / "black.npz", images=np.zeros((IMAGES, 1, 1, 3), np.uint8), labels=np.arange(IMAGES) % 2)
    return dict(name="npz", train=str(folder / "black.npz"), test_per_class=8, image_size=SIDE, canvas=CANVAS)


def _pairs(folder: pathlib.Path, count: int) -> dict[str, Any]:
    """`count` pairs of a black image (all links to one file) and a caption, and two classes to measure on."""
    Image.new("RGB", (1, 1)).save(black := folder / "black.png")
    files = {"train": [f"{i}.png" for i in range(count)]}
    files |= {f"test/{name}": [f"{i}.png" for i in range(8)] for name in ("one", "other")}
    for place, names in files.items():
        (folder / place).mkdir(parents=True)
        for name in names:
            (folder / place / name).symlink_to(black)
    rows = ["path,caption", *(f"{name},black" for name in files["train"])]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return dict(
        train=str(folder / "train"),
        train_table=str(folder / "captions.csv"),
        test=str(folder / "test"),
        held_out_examples=16,
    )


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    cells = (
        [
            f"`{row['config']}`",
            row["slice"],
            f"{row['batch_size']:,}",
            f"{row['memory_gb']:.2f}",
            f"{row['chip_gb']:.0f}",
            f"{row['gflop']:,.1f}",
            ", ".join(f"{kind} {size:,.1f}" for kind, size in row["collectives_mb"].items()),
            f"{row['estimate_ms']:,.1f}",
        ]
        for row in rows
    )
    head = ["config", "slice", "batch", "HBM a chip, GB", "of GB", "GFLOP a chip", "collectives, MB", "estimate, ms"]
    return [*common.table(head, cells), "", "The compiled training step, per chip; the estimate is a roofline."]


if __name__ == "__main__":
    common.main(main)
