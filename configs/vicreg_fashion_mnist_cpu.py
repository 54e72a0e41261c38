"""VICReg on Fashion-MNIST, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
dnc train --config=configs/vicreg_fashion_mnist_cpu.py --workdir=runs/vicreg_fashion_mnist_cpu

One core of two of an AMD EPYC, other programs beside it, 2026-11-22: 32 minutes of training. From step 0 to 1,404,
held-out images: directional CDNV 0.612 -> 0.108 (5.7 times less), after 2.09 at step 50; CDNV 4.89 -> 1.47 (3.3 times);
nearest-center accuracy at 100 shots 0.74, online linear probe 0.78.
"""

from ml_collections import ConfigDict

from configs import vicreg_cifar10_cpu


def get_config() -> ConfigDict:
    config = vicreg_cifar10_cpu.get_config()
    config.data.dataset = "packaged_images/fashion_mnist"
    config.data.augmentation.update(jitter=(0.4, 0.4, 0.0, 0.0), gray=0.0)
    config.train.duration = dict(epochs=6)
    return config
