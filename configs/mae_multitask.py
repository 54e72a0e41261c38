"""Masked autoencoder on the multitask images: a ViT of width 192 on patches of 4 pixels, a fresh render every step.

dnc train --config=configs/mae_multitask.py --workdir=runs/mae_multitask

Not measured at this size; four blocks of width 96 after 1,825 steps are in docs/results/seven-methods.md. Sized for two
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
        position="sincos2d",
        init="xavier_uniform",
        dtype="float32",
        remat=False,
    )
    config.objective = dict(name="mae", mask_ratio=0.75, decoder_width=96, decoder_depth=2, decoder_heads=3)
    config.optimizer = dict(name="adamw", weight_decay=0.05, b2=0.95, clip_norm=None)
    config.schedule = dict(peak=1e-3, warmup=dict(steps=200), end_fraction=0.0)
    config.train.duration = dict(steps=4500)
    return config
