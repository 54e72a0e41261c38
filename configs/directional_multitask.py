"""Directional collapse as a loss on the multitask images: ResNet-18 of width 16, two renders of the same factors.

python -m dnc.train --config=configs/directional_multitask.py --workdir=runs/directional_multitask
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.keep = 1.0
    config.objective = dict(name="directional", directional_weight=10.0, bound="cantelli", widths=(256, 256))
    return config
