"""CLIP on a table of images and captions: ViT-B/16 at 224 pixels, batch 32,768 (Radford et al. 2021).

dnc train --config=configs/clip_pairs.py --workdir=runs/clip_pairs --multihost \
    --config.data.train=images --config.data.train_table=captions.parquet --config.data.test=imagenet/val

Not run here: it is sized for a TPU pod slice. `captions.parquet` has the columns `path` and `caption`; `imagenet/val`
is a folder of class folders, on which collapse is measured. As published: the optimizer, the number of steps (32 epochs
of 400 million pairs), the text Transformer's sizes. Otherwise: captions are 128 bytes at most, and weights start as
this package's others do.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="folder",
        train="images",
        test="imagenet/val",
        train_table="captions.parquet",
        test_table=placeholder(str),
        path_column=placeholder(str),
        tasks=placeholder(tuple),
        train_tasks=(),
        captions="caption",
        test_per_class=placeholder(int),
        image_size=224,
        canvas=placeholder(int),
        held_out_examples=10_000,
        context_length=128,
        broken=0.01,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    # one view, nearly the whole image
    config.data.augmentation = dict(
        recipe="mae",
        crop_scale=(0.9, 1.0),
        crop_ratio=placeholder(tuple),
        crop_method=placeholder(str),
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
        position="learned",
        antialias=False,
        mask_token=False,
        activation="quick_gelu",
        qkv_bias=True,
        patch_bias=False,
        layer_scale=placeholder(float),
        epsilon=1e-5,
        pre_norm=True,
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
        name="clip",
        features=512,
        text_width=512,
        text_depth=12,
        text_heads=8,
        vocabulary=259,
        context_length=128,
        scale=1 / 0.07,
        remat=True,
    )
    config.optimizer = dict(
        name="adamw",
        weight_decay=0.2,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        b1=0.9,
        b2=0.98,
        eps=1e-6,
    )
    config.schedule = dict(
        peak=5e-4, warmup=dict(steps=2000, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=32_768,
        duration=dict(steps=390_625, epochs=placeholder(float), examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 2, 5), repeats=20, normalize=True, train_examples=0, lidar_examples=0)
    )
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
