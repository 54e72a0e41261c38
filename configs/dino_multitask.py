"""DINO on the multitask images: a ViT of width 192 on patches of 4 pixels, two renders as views, no local ones.

dnc train --config=configs/dino_multitask.py --workdir=runs/dino_multitask

Not measured at this size; four blocks of width 96 after 563 steps are in docs/results/seven-methods.md. Sized for two
CPU cores.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.num_examples = 12_800
    config.model = dict(
        name="vit", image_size=32, patch_size=4, width=192, depth=6, heads=3, dtype="float32", remat=False
    )
    config.objective = dict(
        name="dino",
        prototypes=1024,
        hidden=512,
        bottleneck=128,
        momentum=(0.99, 1.0),
        teacher_temperature=(0.04, 0.04),
        freeze_last_layer=0.05,
    )
    config.optimizer = dict(name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0)
    config.schedule = dict(peak=5e-4, warmup=dict(steps=400), end_fraction=2e-3)
    config.train.duration = dict(steps=4500)
    return config
