"""SigLIP on the multitask images and captions that name their factors: ResNet-18 of width 24, as `clip_multitask`.

dnc train --config=configs/siglip_multitask.py --workdir=runs/siglip_multitask

Not measured at this size; width 16 after 1,516 steps is in docs/results/seven-methods.md.
"""

from ml_collections import ConfigDict

from configs import clip_multitask


def get_config() -> ConfigDict:
    config = clip_multitask.get_config()
    config.objective = dict(name="siglip", features=128, text_width=64, text_depth=4, text_heads=4)
    return config
