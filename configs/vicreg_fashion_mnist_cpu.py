"""VICReg on Fashion-MNIST, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
python -m dnc.train --config=configs/vicreg_fashion_mnist_cpu.py --workdir=runs/vicreg_fashion_mnist_cpu

Not run to its end yet: no numbers.
"""

from ml_collections import ConfigDict

from configs import vicreg_cifar10_cpu


def get_config() -> ConfigDict:
    config = vicreg_cifar10_cpu.get_config()
    config.data.dataset = "packaged_images/fashion_mnist"
    config.data.augmentation.update(jitter=(0.4, 0.4, 0.0, 0.0), gray=0.0)
    config.train.duration = dict(epochs=6)
    return config
