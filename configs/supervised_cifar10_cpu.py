"""Supervised training on CIFAR-10: the network of `simclr_cifar10_cpu.py`, for comparison.

make data
dnc train --config=configs/supervised_cifar10_cpu.py --workdir=runs/supervised_cifar10_cpu

One core of two of an AMD EPYC, other programs beside it, 2026-11-22: 8 minutes. From step 0 to 780, held-out images:
directional CDNV 8.04 -> 0.22, CDNV 65.6 -> 2.4; nearest-center accuracy at 100 shots 0.55, online linear probe 0.59.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10_cpu


def get_config() -> ConfigDict:
    config = simclr_cifar10_cpu.get_config()
    config.data.augmentation = dict(recipe="mae", size=None)  # one view: a crop and a flip
    config.objective = dict(name="supervised", task="label", num_classes=10)
    config.train.duration = dict(epochs=4)
    return config
