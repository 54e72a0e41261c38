"""VICReg on CIFAR-10, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
python -m dnc.train --config=configs/vicreg_cifar10_cpu.py --workdir=runs/vicreg_cifar10_cpu

Not run to its end yet: no numbers.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10_cpu


def get_config() -> ConfigDict:
    config = simclr_cifar10_cpu.get_config()
    config.data.augmentation = dict(recipe="vicreg_cifar")
    config.objective = dict(name="vicreg", widths=(512, 512, 512))
    config.train.duration = dict(epochs=8)
    return config
