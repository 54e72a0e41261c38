"""Masked autoencoder on ImageNet-1k: ViT-B/16 at 224 pixels, batch 4,096, 1,600 epochs (He et al. 2022).

dnc train --config=configs/mae_imagenet.py --workdir=runs/mae_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Linear probe
as published, not measured by us: 67.8%.
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
    )

    # The encoder
    config.model = dict(
        name="vit_base",
        image_size=224,
        patch_size=16,
        width=placeholder(int),  # this, depth and heads: by default those that the name stands for
        depth=placeholder(int),
        heads=placeholder(int),
        mlp_ratio=4.0,
        pool="cls",
        class_token=True,
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
        init="xavier_uniform",
        attention=placeholder(str),
        dtype="bfloat16",
        remat=False,
    )

    # What trains it
    config.objective = dict(
        name="mae", mask_ratio=0.75, normalize_target=True, decoder_width=512, decoder_depth=8, decoder_heads=16
    )
    config.optimizer = dict(
        name="adamw",
        weight_decay=0.05,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        b1=0.9,
        b2=0.95,
        eps=1e-8,
    )
    # peak: 1.5e-4 * 4096 / 256
    config.schedule = dict(
        peak=2.4e-3, warmup=dict(steps=placeholder(int), epochs=40, examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=4096,
        duration=dict(steps=placeholder(int), epochs=1600, examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 2, 5), repeats=20, normalize=False, train_examples=10_000, lidar_examples=0)
    )
    # no probe: the encoder never sees a whole image in training
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
