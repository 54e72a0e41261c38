"""I-JEPA on the multitask images: a ViT of width 192 on patches of 4 pixels, a fresh render every step.

dnc train --config=configs/ijepa_multitask.py --workdir=runs/ijepa_multitask

Not measured at this size; four blocks of width 96 after 1,440 steps of Muon are in docs/results/seven-methods.md. Sized
for two CPU cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="multitask",
        num_examples=12_800,
        image_size=32,
        seed=0,
        views="render",
        keep=0.95,
        held_out_renders=4,
        captions=False,
        context_length=64,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    config.data.augmentation = dict(
        recipe=placeholder(str),
        crop_scale=(0.08, 1.0),
        crop_ratio=(3 / 4, 4 / 3),
        crop_method="bilinear",
        size=placeholder(int),
        flip=0.5,
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_probability=0.8,
        gray=0.2,
        blur=0.0,
        blur_sigma=(0.1, 2.0),
        blur_kernel=placeholder(int),
        solarize=0.0,
    )

    # The encoder
    config.model = dict(
        name="vit",
        image_size=32,
        patch_size=4,
        width=192,
        depth=6,
        heads=3,
        mlp_ratio=4.0,
        pool="mean",
        class_token=False,
        registers=0,
        position="sincos2d",
        antialias=False,
        mask_token=False,
        activation="gelu",
        qkv_bias=True,
        patch_bias=True,
        layer_scale=placeholder(float),
        epsilon=1e-6,
        pre_norm=False,
        final_norm="tokens",
        projection=placeholder(int),
        drop_path=0.0,
        init="normal",
        attention=placeholder(str),
        dtype="float32",
        remat=False,
    )

    # What trains it
    config.objective = dict(
        name="ijepa",
        momentum=(0.96, 1.0),
        targets=4,
        target_scale=(0.15, 0.2),
        target_aspect=(0.75, 1.5),
        context_scale=(0.85, 1.0),
        predictor_width=96,
        predictor_depth=2,
        predictor_heads=3,
    )
    config.optimizer = dict(
        name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=placeholder(float), b1=0.9, b2=0.999, eps=1e-8
    )
    config.schedule = dict(
        peak=1e-3, warmup=dict(steps=200, epochs=placeholder(float), examples=placeholder(int)), end_fraction=1e-3
    )
    config.train = dict(
        batch_size=64,
        duration=dict(steps=4500, epochs=placeholder(float), examples=placeholder(int)),
        accumulate=1,
        log_every=20,
        checkpoint_every=200,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=True, train_examples=0, lidar_examples=0)
    )
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
