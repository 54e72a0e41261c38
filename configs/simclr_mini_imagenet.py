"""SimCLR on mini-ImageNet (Vinyals et al. 2016): ResNet-50 at 224 pixels, the set of the paper's training figures.

dnc train --config=configs/simclr_mini_imagenet.py --workdir=runs/simclr_mini_imagenet \
    --config.data.train=mini_imagenet

Not run here: the set is not in a package registry. `mini_imagenet` is a folder of 100 class folders, 600 images each;
100 of each class are held out. With tables of files instead: see `dnc.data.sources.by_name.folder`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="folder",
        train="mini_imagenet",
        test=placeholder(str),
        train_table=placeholder(str),
        test_table=placeholder(str),
        path_column=placeholder(str),
        tasks=placeholder(tuple),
        train_tasks=placeholder(tuple),
        captions=placeholder(str),
        test_per_class=100,
        image_size=placeholder(int),
        canvas=placeholder(int),
        held_out_examples=placeholder(int),
        context_length=64,
        broken=0.01,
    )
    config.data.reading = dict(threads=0, workers=0, prefetch=4)
    config.data.augmentation = dict(
        recipe="simclr",
        crop_scale=placeholder(tuple),
        crop_ratio=placeholder(tuple),
        crop_method=placeholder(str),
        size=224,
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
        name="simclr", temperature=0.1, decoupled=False, widths=(2048, 128), norm=True, last_bias=True
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
    # peak: 0.3 * 512 / 256
    config.schedule = dict(
        peak=0.6, warmup=dict(steps=placeholder(int), epochs=10, examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=512,
        duration=dict(steps=placeholder(int), epochs=1000, examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 5, 10, 20, 50), repeats=20, normalize=False, train_examples=10_000, lidar_examples=0)
    )
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
