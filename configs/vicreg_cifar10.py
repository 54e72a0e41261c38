"""VICReg on CIFAR-10: ResNet-18 (3x3 stem), 1,000 epochs, solo-learn's recipe (da Costa et al. 2022).

make data
dnc train --config=configs/vicreg_cifar10.py --workdir=runs/vicreg_cifar10

Not run here: it is sized for one GPU or TPU. The recipe's online probe, as published, not measured by us: 92.07% on
CIFAR-10, 68.54% on CIFAR-100. solo-learn adds the two views' variance terms without halving them: its weight of 25 is
50 here.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10


def get_config() -> ConfigDict:
    config = simclr_cifar10.get_config()
    config.data.augmentation = dict(recipe="vicreg_cifar")
    config.objective = dict(
        name="vicreg",
        invariance_weight=25.0,
        variance_weight=50.0,
        covariance_weight=1.0,
        widths=(2048, 2048, 2048),
    )
    config.schedule.peak = 0.3
    return config
