"""SimCLR on Fashion-MNIST, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
dnc train --config=configs/simclr_fashion_mnist_cpu.py --workdir=runs/simclr_fashion_mnist_cpu

One core of two of an AMD EPYC, other programs beside it, 2026-11-22: 24 minutes of training. From step 0 to 1,404,
held-out images: directional CDNV 0.612 -> 0.100 (6.1 times less), CDNV 4.89 -> 1.66 (2.9 times); nearest-center
accuracy at 100 shots 0.74, online linear probe 0.80.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10_cpu


def get_config() -> ConfigDict:
    config = simclr_cifar10_cpu.get_config()
    config.data.dataset = "packaged_images/fashion_mnist"
    config.data.augmentation.update(crop_scale=(0.3, 1.0), jitter=(0.4, 0.4, 0.0, 0.0), gray=0.0, blur=0.0)
    config.train.duration = dict(epochs=6)
    return config
