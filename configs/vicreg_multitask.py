"""VICReg on the multitask images: ResNet-18 of width 24, two renders of the same factors as views.

python -m dnc.train --config=configs/vicreg_multitask.py --workdir=runs/vicreg_multitask

Not yet run to its end.
"""

from ml_collections import ConfigDict

from configs import simclr_multitask


def get_config() -> ConfigDict:
    config = simclr_multitask.get_config()
    config.data.keep = 1.0
    config.objective = dict(name="vicreg", widths=(512, 512, 512))
    config.train.duration = dict(steps=2000)
    return config
