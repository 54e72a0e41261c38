"""DINO on the multitask images: a ViT of width 192 on patches of 4 pixels, two renders as views, no local ones.

dnc train --config=configs/dino_multitask.py --workdir=runs/dino_multitask

Prototypes are balanced by Sinkhorn-Knopp: with mean centering, 1,024 prototypes and batches of 128 the loss stayed near
log(1024) for hundreds of steps, that is, the teacher told nothing. Not measured at this size; four blocks of width 96
after 937 steps of Muon are in docs/results/seven-methods.md. Sized for two CPU cores.
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
        pool="cls",
        class_token=True,
        registers=0,
        position="learned",
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
        name="dino",
        prototypes=256,
        hidden=512,
        bottleneck=128,
        student_temperature=0.1,
        teacher_temperature=(0.04, 0.04),
        temperature_warmup=0.0,
        momentum=(0.96, 1.0),
        freeze_last_layer=0.0,
        centering="sinkhorn",
        center_momentum=0.9,
        ibot_weight=0.0,
        mask_probability=0.5,
        mask_ratio=(0.1, 0.5),
        koleo_weight=0.0,
    )
    config.optimizer = dict(
        name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0, b1=0.9, b2=0.999, eps=1e-8
    )
    config.schedule = dict(
        peak=5e-4, warmup=dict(steps=400, epochs=placeholder(float), examples=placeholder(int)), end_fraction=2e-3
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
