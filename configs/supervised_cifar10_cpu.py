"""Supervised training on CIFAR-10: the network of `simclr_cifar10_cpu.py`, for comparison.

make data
python -m dnc.train --config=configs/supervised_cifar10_cpu.py --workdir=runs/supervised_cifar10_cpu

Not run to its end yet: no numbers.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10_cpu


def get_config() -> ConfigDict:
    config = simclr_cifar10_cpu.get_config()
    config.data.augmentation = dict(recipe="mae", size=None)  # one view: a crop and a flip
    config.objective = dict(name="supervised", task="label", num_classes=10)
    config.train.duration = dict(epochs=4)
    return config
