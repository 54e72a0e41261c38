"""Features of photographs from a ViT-B/16: `dnc.load_pretrained`'s encoder against transformers in PyTorch.

python -m experiments.benchmarks.embedding --output=experiments/results/benchmarks     # 2 minutes; dnc[dev]

transformers writes a random ViT-B/16 for 224 pixels; both read it, and take the class token of the same prepared
images, in float32 and on the same cores. Features must agree before anything is timed. Rounds alternate in one
process; medians count.
"""

import json
import pathlib
import platform
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from absl import app, flags
from PIL import Image
from transformers import ViTConfig, ViTImageProcessor, ViTModel

import dnc
from dnc import distributed
from dnc.features.embedding import published_encoder
from experiments.benchmarks.photographs import photographs
from experiments.benchmarks.timing import alternating

_OUTPUT = flags.DEFINE_string("output", None, "Folder for embedding.json and embedding.md.", required=True)
_BATCH = flags.DEFINE_integer("batch", 16, "Images at once.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Batches of each, in turn; the median counts.", lower_bound=1)

SIDE = 224


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    torch.set_num_threads(distributed.available_cores())
    distributed.initialize(batch_size=_BATCH.value)
    theirs: Any = ViTModel(ViTConfig(image_size=SIDE), add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        pretrained = dnc.load_pretrained(folder)
    mesh = distributed.make_mesh()
    encoder = published_encoder(pretrained, mesh)
    pictures = [Image.fromarray(pixels) for pixels in photographs(SIDE, _BATCH.value)]
    prepared = np.stack([pretrained.preprocessing.image(picture) for picture in pictures])
    images = distributed.shard_batch(mesh, prepared)
    standardized = np.array(pretrained.preprocessing.standardize(images)).transpose(0, 3, 1, 2)
    pixels = torch.from_numpy(np.ascontiguousarray(standardized))

    def in_torch() -> np.ndarray:
        with torch.inference_mode():
            return theirs(pixels).last_hidden_state[:, 0].numpy()

    np.testing.assert_allclose(np.asarray(encoder.encode(images)), in_torch(), rtol=1e-3, atol=1e-3)
    ours, other = (_BATCH.value / s for s in alternating([lambda: encoder.encode(images), in_torch], _ROUNDS.value))
    versions = f"jax {jax.__version__}, PyTorch {torch.__version__}"
    machine = f"{torch.get_num_threads()} cores, {platform.processor() or platform.machine()}, {versions}"
    record = {"machine": machine, "date": time.strftime("%Y-%m-%d"), "batch": _BATCH.value, "jax": ours, "torch": other}
    output = pathlib.Path(str(_OUTPUT.value))
    output.mkdir(parents=True, exist_ok=True)
    (output / "embedding.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [f"{machine}, {record['date']}; ViT-B/16, {SIDE} px, float32, batches of {_BATCH.value}.", ""]
    lines += ["| images/s in JAX | in PyTorch | JAX : PyTorch |", "|---|---|---|"]
    lines += [f"| {ours:.2f} | {other:.2f} | {ours / other:.2f} |", ""]
    (output / "embedding.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)
