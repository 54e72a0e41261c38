"""Supervised training on one factor of the multitask images: the comparison for self-supervised collapse.

dnc train --config=configs/supervised_multitask.py --workdir=runs/supervised_style \
  --config.objective.task=style --config.objective.num_classes=4

2 cores of an AMD EPYC, 2026-11-22, 400 steps in under two minutes: held-out nearest-center accuracy of the trained
factor at 100 shots is 1.000 for color, shape and size and 0.983 for style (`experiments.recognize_factors` runs all).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    # keep=1: the second view carries the label of the first
    config.data = dict(
        name="multitask",
        num_examples=6400,
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
        name="resnet", depth=18, stem="cifar_s2", width=16, zero_init_residual=False, dtype="float32", remat=False
    )

    # What trains it
    config.objective = dict(name="supervised", task="shape", num_classes=6, label_smoothing=0.0)
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
        peak=5e-3, warmup=dict(steps=50, epochs=placeholder(float), examples=placeholder(int)), end_fraction=0.0
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
