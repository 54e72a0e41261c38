"""DINO on ImageNet-1k: ViT-S/16, two views of 224 pixels and eight of 96, batch 512, 100 epochs (Caron et al. 2021).

dnc train --config=configs/dino_imagenet.py --workdir=runs/dino_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord.
Nearest-neighbor accuracy as published, not measured by us: 69.3%. The authors clip the gradient of every parameter to
norm 3 by itself; here the gradient as a whole has at most that norm.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="tfds",
        dataset="imagenet2012",
        train="train",
        test="validation",
        data_dir=placeholder(str),
        tasks=placeholder(tuple),
        train_tasks=placeholder(tuple),
        in_memory=placeholder(bool),
        image_size=placeholder(int),
        canvas=placeholder(int),
        held_out_examples=10_000,
        context_length=64,
        broken=0.01,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    config.data.augmentation = dict(
        recipe="dino",
        crop_scale=placeholder(tuple),
        crop_ratio=placeholder(tuple),
        crop_method=placeholder(str),
        size=placeholder(int),
        flip=placeholder(float),
        jitter=placeholder(tuple),
        jitter_probability=placeholder(float),
        gray=placeholder(float),
        blur=placeholder(float),
        blur_sigma=placeholder(tuple),
        blur_kernel=placeholder(int),
        solarize=placeholder(float),
        local=dict(
            count=placeholder(int),
            crop_scale=placeholder(tuple),
            crop_ratio=placeholder(tuple),
            crop_method=placeholder(str),
            size=placeholder(int),
            flip=placeholder(float),
            jitter=placeholder(tuple),
            jitter_probability=placeholder(float),
            gray=placeholder(float),
            blur=placeholder(float),
            blur_sigma=placeholder(tuple),
            blur_kernel=placeholder(int),
            solarize=placeholder(float),
        ),
    )

    # The encoder
    config.model = dict(
        name="vit_small",
        image_size=224,
        patch_size=16,
        width=placeholder(int),  # this, depth and heads: by default those that the name stands for
        depth=placeholder(int),
        heads=placeholder(int),
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
        drop_path=0.1,
        init="normal",
        attention=placeholder(str),
        dtype="bfloat16",
        remat=False,
    )

    # What trains it
    config.objective = dict(
        name="dino",
        prototypes=65_536,
        hidden=2048,
        bottleneck=256,
        student_temperature=0.1,
        teacher_temperature=(0.04, 0.04),
        temperature_warmup=0.0,
        momentum=(0.996, 1.0),
        freeze_last_layer=0.01,
        centering="mean",
        center_momentum=0.9,
        ibot_weight=0.0,
        mask_probability=0.5,
        mask_ratio=(0.1, 0.5),
        koleo_weight=0.0,
    )
    config.optimizer = dict(
        name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0, b1=0.9, b2=0.999, eps=1e-8
    )
    # peak: 5e-4 * 512 / 256
    config.schedule = dict(
        peak=1e-3, warmup=dict(steps=placeholder(int), epochs=10, examples=placeholder(int)), end_fraction=1e-3
    )
    config.train = dict(
        batch_size=512,
        duration=dict(steps=placeholder(int), epochs=100, examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 2, 5), repeats=20, normalize=False, train_examples=10_000, lidar_examples=0)
    )
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
