"""VICReg on ImageNet-1k: ResNet-50 at 224 pixels, batch 2,048, 1,000 epochs (Bardes et al. 2022).

dnc train --config=configs/vicreg_imagenet.py --workdir=runs/vicreg_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Linear probe
as published, not measured by us: 73.2%.
"""

from ml_collections import ConfigDict

from configs import simclr_imagenet


def get_config() -> ConfigDict:
    config = simclr_imagenet.get_config()
    config.data.augmentation = dict(recipe="vicreg")
    config.objective = dict(name="vicreg", widths=(8192, 8192, 8192))
    config.schedule = dict(peak=1.6, warmup=dict(epochs=10), end_fraction=1e-3)  # 0.2 * 2048 / 256
    config.train.batch_size = 2048
    config.train.duration = dict(epochs=1000)
    return config
