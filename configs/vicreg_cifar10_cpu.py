"""VICReg on CIFAR-10, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
dnc train --config=configs/vicreg_cifar10_cpu.py --workdir=runs/vicreg_cifar10_cpu

One core of two of an AMD EPYC, other programs beside it, 2026-11-22: 27 minutes of training. From step 0 to 1,560,
held-out images: directional CDNV 8.04 -> 1.11 (7.2 times less), CDNV 65.6 -> 11.1 (5.9 times); nearest-center accuracy
at 100 shots 0.34, online linear probe 0.41 on the ten classes, 0.87 on animals against vehicles.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10_cpu


def get_config() -> ConfigDict:
    config = simclr_cifar10_cpu.get_config()
    config.data.augmentation = dict(recipe="vicreg_cifar")
    config.objective = dict(name="vicreg", widths=(512, 512, 512))
    config.train.duration = dict(epochs=8)
    return config
