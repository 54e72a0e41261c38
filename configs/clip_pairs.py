"""CLIP on a table of images and captions: ViT-B/16 at 224 pixels, batch 32,768 (Radford et al. 2021).

dnc train --config=configs/clip_pairs.py --workdir=runs/clip_pairs --multihost \
    --config.data.train=images --config.data.train_table=captions.parquet --config.data.test=imagenet/val

Not run here: it is sized for a TPU pod slice. `captions.parquet` has the columns `path` and `caption`; `imagenet/val`
is a folder of class folders, on which collapse is measured. As published: the optimizer, the number of steps (32 epochs
of 400 million pairs), the text Transformer's sizes. Otherwise: captions are 128 bytes at most, and weights start as
this package's others do.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="folder",
        train="images",
        train_table="captions.parquet",
        captions="caption",
        train_tasks=(),
        test="imagenet/val",
        held_out_examples=10_000,
        image_size=224,
        context_length=128,
        augmentation=dict(recipe="mae", crop_scale=(0.9, 1.0), flip=0.0),  # one view, nearly the whole image
    )
    config.model = dict(
        name="vit_base",
        image_size=224,
        patch_size=16,
        pre_norm=True,
        patch_bias=False,
        activation="quick_gelu",
        epsilon=1e-5,
        dtype="bfloat16",
        remat=True,
    )
    config.objective = dict(
        name="clip", features=512, text_width=512, text_depth=12, text_heads=8, context_length=128, remat=True
    )
    config.optimizer = dict(name="adamw", weight_decay=0.2, b2=0.98, eps=1e-6, clip_norm=None)
    config.schedule = dict(peak=5e-4, warmup=dict(steps=2000), end_fraction=0.0)
    config.train = dict(
        batch_size=32_768, duration=dict(steps=390_625), accumulate=1, log_every=50, checkpoint_every=1000
    )
    config.measure = dict(shots=(1, 2, 5), repeats=20, normalize=True, train_examples=0)
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
