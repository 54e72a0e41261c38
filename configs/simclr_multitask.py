"""SimCLR on the multitask images: ResNet-18 of width 24, two renders as views, factors kept with probability 0.95.

dnc train --config=configs/simclr_multitask.py --workdir=runs/simclr_multitask

One core of an AMD EPYC, 2026-11-22, another run on the second: 53 min 36 s. From step 0 to 4,500, directional CDNV:
color 0.155 -> 0.0014, shape 2.71 -> 0.0021, size 0.73 -> 0.0027, style 2.06 -> 0.0017; CDNV: 8.3 -> 3.6, 196 -> 2.8,
43 -> 2.1, 89 -> 2.3. Nearest-center accuracy at 10 / 100 shots: color 0.87 / 1.00, shape 0.93 / 1.00, size 0.99 / 1.00,
style 0.98 / 1.00. Median |cos| of axes of different factors: 2^-5.7 to 2^-6.7. Two-class exact Cantelli at 5 shots:
0.39, 0.30, 0.16, 0.20, where Luthra et al. (2026) is at 1.
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
        name="resnet", depth=18, stem="cifar_s2", width=24, zero_init_residual=False, dtype="float32", remat=False
    )

    # What trains it
    config.objective = dict(name="simclr", temperature=0.07, decoupled=False, widths=(128,), norm=False, last_bias=True)
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
