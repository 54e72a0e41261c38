"""I-JEPA on ImageNet-1k: ViT-H/14 at 224 pixels, batch 2,048, 300 epochs (Assran et al. 2023).

dnc train --config=configs/ijepa_imagenet.py --workdir=runs/ijepa_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Unlike the
authors, who start at a rate of 2e-4, the warm-up starts at 0, and no residual branch is scaled down at the start.
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
        recipe="mae",
        crop_scale=(0.3, 1.0),
        crop_ratio=placeholder(tuple),
        crop_method="bilinear",
        size=placeholder(int),
        flip=0.0,
        jitter=placeholder(tuple),
        jitter_probability=placeholder(float),
        gray=placeholder(float),
        blur=placeholder(float),
        blur_sigma=placeholder(tuple),
        blur_kernel=placeholder(int),
        solarize=placeholder(float),
    )

    # The encoder
    config.model = dict(
        name="vit",
        image_size=224,
        patch_size=14,
        width=1280,
        depth=32,
        heads=16,
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
        dtype="bfloat16",
        remat=True,
    )

    # What trains it
    config.objective = dict(
        name="ijepa",
        momentum=(0.996, 1.0),
        targets=4,
        target_scale=(0.15, 0.2),
        target_aspect=(0.75, 1.5),
        context_scale=(0.85, 1.0),
        predictor_width=384,
        predictor_depth=12,
        predictor_heads=16,
    )
    config.optimizer = dict(
        name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=placeholder(float), b1=0.9, b2=0.999, eps=1e-8
    )
    config.schedule = dict(
        peak=1e-3, warmup=dict(steps=placeholder(int), epochs=40, examples=placeholder(int)), end_fraction=1e-3
    )
    config.train = dict(
        batch_size=2048,
        duration=dict(steps=placeholder(int), epochs=300, examples=placeholder(int)),
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
