"""Features of photographs from a ViT-B/16: `dnc.load_pretrained`'s encoder against transformers in PyTorch.

python -m experiments.benchmarks.embedding --output=experiments/results/benchmarks     # 2 minutes; dnc[dev]

transformers writes a random ViT-B/16 for 224 pixels; both read it, and take the class token of the same prepared
images, in float32 and on the same cores. Features must agree before anything is timed. Rounds alternate in one
process; medians count.
"""

import tempfile
from typing import Any

import jax
import numpy as np
import torch
from absl import flags
from PIL import Image
from transformers import ViTConfig, ViTImageProcessor, ViTModel

import dnc
from dnc import distributed
from dnc.features.embedding import published_encoder
from experiments import common
from experiments.benchmarks.photographs import photographs
from experiments.benchmarks.timing import alternating

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_BATCH = flags.DEFINE_integer("batch", 16, "Images at once.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Batches of each, in turn; the median counts.", lower_bound=1)

SIDE = 224


def main() -> None:
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
    record: dict[str, Any] = common.machine(jax=jax.__version__, PyTorch=torch.__version__)
    record |= {"batch": _BATCH.value, "jax": ours, "torch": other}
    note = f"ViT-B/16, {SIDE} px, float32, batches of {_BATCH.value}."
    lines = [f"{record['machine']}, {record['date']}; {note}", ""]
    row = [f"{ours:.2f}", f"{other:.2f}", f"{ours / other:.2f}"]
    lines += common.table(["images/s in JAX", "in PyTorch", "JAX : PyTorch"], [row])
    common.save(_OUTPUT.value, "embedding", record, lines)


if __name__ == "__main__":
    common.main(main)
