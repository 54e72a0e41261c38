"""Supervised training on Fashion-MNIST: the network of `simclr_fashion_mnist_cpu.py`, for comparison.

make data
python -m dnc.train --config=configs/supervised_fashion_mnist_cpu.py --workdir=runs/supervised_fashion_mnist_cpu

Not run to its end yet: no numbers.
"""

from ml_collections import ConfigDict

from configs import supervised_cifar10_cpu


def get_config() -> ConfigDict:
    config = supervised_cifar10_cpu.get_config()
    config.data.dataset = "packaged_images/fashion_mnist"
    return config
