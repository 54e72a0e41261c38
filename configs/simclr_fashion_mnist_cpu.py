"""SimCLR on Fashion-MNIST, sized for two CPU cores: ResNet-10 of width 32, stride-2 stem, views of 24 pixels, Muon.

make data
dnc train --config=configs/simclr_fashion_mnist_cpu.py --workdir=runs/simclr_fashion_mnist_cpu

One core of two of an AMD EPYC, other programs on both, 2026-11-27: 98 minutes with JAX_NUM_CPU_DEVICES=1, 55 at the
pace that it had alone. From step 0 to 7,488, held-out images: directional CDNV 0.297 -> 0.098 (3.0 times less), CDNV
3.24 -> 2.20 (1.5 times); nearest-center accuracy at 100 shots 0.75, online linear probe 0.81; 20-NN 0.83. After 6
epochs of batches of 256, the only other setting that was tried, directional CDNV was 0.102.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    # The images, and the views that are made of them
    config.data = dict(
        name="tfds",
        dataset="packaged_images/fashion_mnist",
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
        crop_scale=(0.3, 1.0),
        crop_ratio=placeholder(tuple),
        crop_method=placeholder(str),
        size=24,
        flip=placeholder(float),
        jitter=(0.4, 0.4, 0.0, 0.0),
        jitter_probability=placeholder(float),
        gray=0.0,
        blur=0.0,
        blur_sigma=placeholder(tuple),
        blur_kernel=placeholder(int),
        solarize=placeholder(float),
    )

    # The encoder
    config.model = dict(
        name="resnet", depth=10, stem="cifar_s2", width=32, zero_init_residual=False, dtype="float32", remat=False
    )

    # What trains it
    config.objective = dict(
        name="simclr", temperature=0.2, decoupled=False, widths=(256, 128), norm=False, last_bias=True
    )
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
        peak=0.02, warmup=dict(steps=placeholder(int), epochs=1, examples=placeholder(int)), end_fraction=0.0
    )
    config.train = dict(
        batch_size=128,
        duration=dict(steps=placeholder(int), epochs=16, examples=placeholder(int)),
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
    )

    # What is measured, at steps 0, 1, 2, 5, 10, 20, ... and the last
    config.measure = dict(
        collapse=dict(shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=False, train_examples=5000, lidar_examples=0)
    )
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
