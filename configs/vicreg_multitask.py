"""VICReg on the multitask images: ResNet-18 of width 24, two renders of the same factors as views.

dnc train --config=configs/vicreg_multitask.py --workdir=runs/vicreg_multitask

One core of an AMD EPYC, 2026-11-22, another run on the second: 49 min 4 s. Shape was not learned. Step 0 to 4,000:
directional CDNV: color 0.155 -> 0.017, shape 2.71 -> 4.53, size 0.73 -> 0.026, style 2.06 -> 0.071; CDNV: 8.3 -> 4.8,
196 -> 119, 43 -> 4.0, 89 -> 4.9. Nearest-center accuracy at 10 / 100 shots: color 0.74 / 0.99, shape 0.20 / 0.21,
size 0.83 / 0.97, style 0.74 / 0.86.
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
        keep=1.0,
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
        name="resnet", depth=18, stem="cifar_s2", width=24, zero_init_residual=False, dtype="float32", remat=False
    )

    # What trains it
    config.objective = dict(
        name="vicreg",
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        widths=(512, 512, 512),
        norm=True,
        last_bias=False,
    )
    config.optimizer = dict(
        name="adamw",
        weight_decay=0.01,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        b1=0.9,
        b2=0.999,
        eps=1e-8,
    )
    config.schedule = dict(
        peak=5e-3, warmup=dict(steps=100, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=128,
        duration=dict(steps=4000, epochs=placeholder(float), examples=placeholder(int)),
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
