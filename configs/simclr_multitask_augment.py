"""SimCLR on the multitask images from augmentation alone: training is told nothing of the factors.

dnc train --config=configs/simclr_multitask_augment.py --workdir=runs/simclr_multitask_augment

Both views of an example are crops of one fixed picture. As all four factors are labels, transforms hardly change any:
crops keep the aspect ratio and at least 0.6 of the area, so that they enlarge by at most 1.29 (neighboring sizes are
1.23 to 1.32 apart); hues turn by at most 11 degrees (neighboring colors are 48 to 75 apart); nothing becomes gray.
Three trials with seed 1 (two of 600 steps, one stopped after 200) had crops of at least 0.5, 0.7 and 0.85 of the area;
0.6 lies between the first two and was not tried by itself.

One core of two of an AMD EPYC, another program on the other, 2026-11-27: 15 min. From step 0 to 3,000, directional
CDNV: color 0.174 -> 0.0245, shape 4.37 -> 0.0607, size 0.723 -> 0.161, style 3.04 -> 0.0573; CDNV: 6.3 -> 5.6, 200 ->
6.7, 29 -> 19, 79 -> 7.4. Accuracy at 10 / 100 shots: 0.74 / 0.98, 0.64 / 0.84, 0.50 / 0.66, 0.73 / 0.90.
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
        views="augment",
        keep=0.95,
        held_out_renders=4,
        captions=False,
        context_length=64,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    config.data.augmentation = dict(
        recipe=placeholder(str),
        crop_scale=(0.6, 1.0),
        crop_ratio=(1.0, 1.0),
        crop_method="bilinear",
        size=placeholder(int),
        flip=0.5,
        jitter=(0.6, 0.6, 0.4, 0.03),
        jitter_probability=1.0,
        gray=0.0,
        blur=0.5,
        blur_sigma=(0.1, 1.0),
        blur_kernel=placeholder(int),
        solarize=0.0,
    )

    # The encoder
    config.model = dict(
        name="resnet", depth=10, stem="cifar_s2", width=16, zero_init_residual=False, dtype="float32", remat=False
    )

    # What trains it
    config.objective = dict(name="simclr", temperature=0.07, decoupled=False, widths=(128,), norm=False, last_bias=True)
    config.optimizer = dict(
        name="muon",
        weight_decay=2.0,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        beta=0.95,
        iterations=5,
        adam_rate=0.2,
        not_hidden=(),
        b1=0.9,
        b2=0.999,
        eps=1e-8,
    )
    config.schedule = dict(
        peak=0.02, warmup=dict(steps=100, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=128,
        duration=dict(steps=3000, epochs=placeholder(float), examples=placeholder(int)),
        accumulate=1,
        log_every=20,
        checkpoint_every=500,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=True, train_examples=0, lidar_examples=0)
    )
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
