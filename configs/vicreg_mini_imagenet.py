"""VICReg on mini-ImageNet (Vinyals et al. 2016): ResNet-50 at 224 pixels, the set of the paper's training figures.

dnc train --config=configs/vicreg_mini_imagenet.py --workdir=runs/vicreg_mini_imagenet \
    --config.data.train=mini_imagenet

Not run here: the set is not in a package registry; see `configs/simclr_mini_imagenet.py`.
"""

from ml_collections import ConfigDict

from configs import simclr_mini_imagenet


def get_config() -> ConfigDict:
    config = simclr_mini_imagenet.get_config()
    config.data.augmentation = dict(recipe="vicreg", size=224)
    config.objective = dict(name="vicreg", widths=(8192, 8192, 8192))
    config.schedule = dict(peak=0.4, warmup=dict(epochs=10), end_fraction=1e-3)  # 0.2 * 512 / 256
    return config
