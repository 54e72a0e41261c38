"""Features of photographs from a ViT-B/16: `dnc.load_pretrained`'s encoder against transformers in PyTorch.

python -m experiments.benchmarks.embedding --output=experiments/results/benchmarks     # 2 minutes; dnc[dev]

transformers writes a random ViT-B/16 for 224 pixels; both read it, and take the class token of the same prepared
images, on the same device. Features must agree, computed with full float32 products, before anything is timed. Rounds
alternate in one process; medians count. On a GPU float32 products are as each library computes them by default (TF32 in
JAX; in PyTorch for convolutions alone), and bfloat16 is timed too; give it larger batches (--batch=256).
"""

import contextlib
import functools
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
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
PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    torch.set_num_threads(distributed.available_cores())
    distributed.initialize(batch_size=_BATCH.value)
    device = "cuda" if common.accelerator() else "cpu"
    theirs: Any = ViTModel(ViTConfig(image_size=SIDE), add_pooling_layer=False).eval()
    mesh = distributed.make_mesh()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ViTImageProcessor().save_pretrained(folder)
        networks = {precision: dnc.load_pretrained(folder, dtype=jnp.dtype(precision)) for precision in PRECISIONS}
        encoders = {name: published_encoder(network, mesh).encode for name, network in networks.items()}
    theirs, preprocessing = theirs.to(device), networks["float32"].preprocessing
    pictures = [Image.fromarray(pixels) for pixels in photographs(SIDE, _BATCH.value)]
    images = distributed.shard_batch(mesh, np.stack([preprocessing.image(picture) for picture in pictures]))
    standardized = np.array(preprocessing.standardize(images)).transpose(0, 3, 1, 2)
    pixels = torch.from_numpy(np.ascontiguousarray(standardized)).to(device)

    def in_torch(precision: str) -> torch.Tensor:
        low = torch.autocast(device, torch.bfloat16) if precision != "float32" else contextlib.nullcontext()
        with torch.inference_mode(), low:
            features = theirs(pixels).last_hidden_state[:, 0]
            if device == "cuda":
                torch.cuda.synchronize()
            return features

    torch.backends.cudnn.allow_tf32 = False
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(encoders["float32"](images))
    np.testing.assert_allclose(ours, in_torch("float32").float().cpu().numpy(), rtol=1e-3, atol=1e-3)
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    rates = {}
    for precision in PRECISIONS if device == "cuda" else PRECISIONS[:1]:
        programs = [functools.partial(encoders[precision], images), functools.partial(in_torch, precision)]
        rates[precision] = [_BATCH.value / seconds for seconds in alternating(programs, _ROUNDS.value)]
    record: dict[str, Any] = common.machine(jax=jax.__version__, PyTorch=torch.__version__)
    named = common.accelerator() or "CPU"
    record |= {"device": named, "batch": _BATCH.value}
    record["rates"] = {precision: {"jax": ours, "torch": other} for precision, (ours, other) in rates.items()}
    note = f"ViT-B/16, {SIDE} px, batches of {_BATCH.value}."
    if device == "cuda":
        note += " float32: each library's default, JAX with TF32 products, PyTorch with TF32 in convolutions alone."
    lines = [f"{record['machine']}, {record['date']}; {note}", ""]
    rows = [
        [named, precision, f"{ours:.2f}", f"{other:.2f}", f"{ours / other:.2f}"]
        for precision, (ours, other) in rates.items()
    ]
    lines += common.table(["device", "precision", "images/s in JAX", "in PyTorch", "JAX : PyTorch"], rows)
    common.save(_OUTPUT.value, common.beside("embedding"), record, lines)


if __name__ == "__main__":
    common.main(main)
