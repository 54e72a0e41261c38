"""VICReg on ImageNet-1k: ResNet-50 at 224 pixels, batch 2,048, 1,000 epochs (Bardes et al. 2022).

dnc train --config=configs/vicreg_imagenet.py --workdir=runs/vicreg_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Linear probe
as published, not measured by us: 73.2%.
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
        recipe="vicreg",
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
        name="resnet", depth=50, stem="imagenet", width=64, zero_init_residual=True, dtype="bfloat16", remat=False
    )

    # What trains it
    config.objective = dict(
        name="vicreg",
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        widths=(8192, 8192, 8192),
        norm=True,
        last_bias=False,
    )
    config.optimizer = dict(
        name="lars",
        weight_decay=1e-6,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        momentum=0.9,
        trust_coefficient=1e-3,
        clip=False,
    )
    # peak: 0.2 * 2048 / 256
    config.schedule = dict(
        peak=1.6, warmup=dict(steps=placeholder(int), epochs=10, examples=placeholder(int)), end_fraction=1e-3
    )
    config.train = dict(
        batch_size=2048,
        duration=dict(steps=placeholder(int), epochs=1000, examples=placeholder(int)),
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
