"""SimCLR on the multitask images, sized for two CPU cores and a few minutes.

dnc train --config=configs/quickstart.py --workdir=runs/quickstart

2 cores of an AMD EPYC, 2026-11-26: 3 min 42 s (2 min 33 s on 2026-11-27). From step 0 to 400, directional CDNV: color
0.173 -> 0.0099, shape 3.79 -> 0.0171, size 0.73 -> 0.0103, style 3.26 -> 0.0250; CDNV: 6.4 -> 3.0, 212 -> 3.4, 29 ->
3.2, 69 -> 3.7.
Nearest-center accuracy at 10 / 100 shots: color 0.88 / 1.00, shape 0.82 / 0.98, size 0.89 / 1.00, style 0.84 / 0.96.
Median |cos| of axes of different factors: at most 0.04. Chosen in 16 trials with seed 1; this is seed 0.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="multitask",
        num_examples=6400,
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
        peak=0.02, warmup=dict(steps=50, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=128,
        duration=dict(steps=400, epochs=placeholder(float), examples=placeholder(int)),
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
