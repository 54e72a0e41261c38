"""SimCLR on CIFAR-10: ResNet-18 (3x3 stem), 1,000 epochs, solo-learn's recipe (da Costa et al. 2022).

make data
dnc train --config=configs/simclr_cifar10.py --workdir=runs/simclr_cifar10

Not run here: it is sized for one GPU or TPU. The recipe's online probe, as published, not measured by us: 90.74% on
CIFAR-10, 65.78% on CIFAR-100 (`--config.data.dataset=cifar100`, prepared with TFDS).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="tfds",
        dataset="packaged_images/cifar10",
        train="train",
        test="test",
        data_dir=placeholder(str),
        tasks=placeholder(tuple),
        train_tasks=placeholder(tuple),
        in_memory=placeholder(bool),
        image_size=placeholder(int),
        canvas=placeholder(int),
        held_out_examples=placeholder(int),
        context_length=64,
        broken=0.01,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    config.data.augmentation = dict(
        recipe="simclr_cifar",
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
        name="resnet", depth=18, stem="cifar", width=64, zero_init_residual=False, dtype="bfloat16", remat=False
    )

    # What trains it
    config.objective = dict(
        name="simclr", temperature=0.2, decoupled=False, widths=(2048, 256), norm=False, last_bias=True
    )
    config.optimizer = dict(
        name="lars",
        weight_decay=1e-4,
        weight_decay_end=placeholder(float),
        clip_norm=placeholder(float),
        momentum=0.9,
        trust_coefficient=0.02,
        clip=True,
    )
    config.schedule = dict(
        peak=0.4, warmup=dict(steps=placeholder(int), epochs=10, examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=256,
        duration=dict(steps=placeholder(int), epochs=1000, examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=5000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(
            shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=False, train_examples=10_000, lidar_examples=0
        )
    )
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
