"""stable-pretraining's side of experiments/benchmarks/whole_step.py, run by an interpreter that has its JAX backend.

python experiments/benchmarks/whole_step_stable_pretraining.py images.npy batch steps < rounds

Every line read asks for a round and is answered by examples per second. Its two views are made inside the step, as
ours; they change brightness and contrast, and neither saturation, hue nor sharpness. Its trainer waits for each
step's loss.
"""

import os
import sys
import time
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import stable_pretraining.jax as spj  # pyright: ignore[reportMissingImports]
from flax import nnx


def main(path: str, batch: int, steps: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # its log goes to stdout
    images, rng = np.load(path), np.random.default_rng(0)

    def rounds() -> Iterator[dict[str, np.ndarray]]:
        for _ in sys.stdin:
            started = time.perf_counter()
            for _ in range(steps):
                rows = rng.integers(0, len(images), batch)
                yield {"image": images[rows].astype(np.float32) / 255.0}
            print(steps * batch / (time.perf_counter() - started), file=answers, flush=True)

    rngs = nnx.Rngs(0)
    model = spj.SimCLR(
        backbone=spj.backbone.resnet.resnet18(low_resolution=True, rngs=rngs),
        embed_dim=512,
        projector_dims=(512, 128),
        temperature=0.2,
        optim={"type": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-4},
        transform=spj.augment.two_view_transform(images.shape[1]),
        rngs=rngs,
        dtype=jnp.float32,
    )
    spj.Trainer(max_epochs=1, enable_validation=False).fit(model, rounds())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
