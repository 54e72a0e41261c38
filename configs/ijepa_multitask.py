"""I-JEPA on the multitask images: a ViT of width 192 on patches of 4 pixels, a fresh render every step.

dnc train --config=configs/ijepa_multitask.py --workdir=runs/ijepa_multitask

Not measured at this size; four blocks of width 96 after 686 steps are in docs/results/seven-methods.md. Sized for two
CPU cores.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.num_examples = 12_800
    config.model = dict(
        name="vit",
        image_size=32,
        patch_size=4,
        width=192,
        depth=6,
        heads=3,
        pool="mean",
        class_token=False,
        position="sincos2d",
        dtype="float32",
        remat=False,
    )
    config.objective = dict(
        name="ijepa", momentum=(0.99, 1.0), predictor_width=96, predictor_depth=2, predictor_heads=3
    )
    config.optimizer = dict(name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=None)
    config.schedule = dict(peak=1e-3, warmup=dict(steps=200), end_fraction=1e-3)
    config.train.duration = dict(steps=4500)
    return config
