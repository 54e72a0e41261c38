"""SigLIP on a table of images and captions: ViT-B/16 at 224 pixels, batch 32,768 (Zhai et al. 2023).

dnc train --config=configs/siglip_pairs.py --workdir=runs/siglip_pairs --multihost \
    --config.data.train=images --config.data.train_table=captions.parquet --config.data.test=imagenet/val

Not run here: it is sized for a TPU pod slice. Data as for `clip_pairs`. As published: the loss, the batch, b2, both
Transformers' sizes and attention pooling. Otherwise: the remaining settings of the optimizer, and the number of steps
(9 billion pairs), are a choice to start from; captions are 128 bytes at most; the loss's bias is that of the batch size
(see `dnc.objectives.siglip`).
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
        pool="map",
        class_token=False,
        registers=0,
        position="learned",
        antialias=False,
        mask_token=False,
        activation="gelu_tanh",
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
        remat=True,
    )

    # What trains it
    config.objective = dict(
        name="siglip",
        features=768,
        text_width=768,
        text_depth=12,
        text_heads=12,
        vocabulary=259,
        context_length=128,
        scale=10.0,
        remat=True,
    )
    config.optimizer = dict(
        name="adamw", weight_decay=1e-4, weight_decay_end=placeholder(float), clip_norm=1.0, b1=0.9, b2=0.95, eps=1e-8
    )
    config.schedule = dict(
        peak=1e-3, warmup=dict(steps=10_000, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=32_768,
        duration=dict(steps=274_658, epochs=placeholder(float), examples=placeholder(int)),
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
