"""CLIP on the multitask images and captions that name their factors: ResNet-18 of width 24, 4 text blocks of width 64.

dnc train --config=configs/clip_multitask.py --workdir=runs/clip_multitask

Not measured at this size; width 16 after 1,541 steps is in docs/results/seven-methods.md.
"""

from ml_collections import ConfigDict

from configs import simclr_multitask


def get_config() -> ConfigDict:
    config = simclr_multitask.get_config()
    config.data.keep = 1.0
    config.data.captions = True
    config.objective = dict(name="clip", features=128, text_width=64, text_depth=4, text_heads=4)
    config.optimizer = dict(name="adamw", weight_decay=1e-2, b2=0.98, eps=1e-6, clip_norm=None)
    config.schedule.peak = 1e-3
    config.train.duration = dict(steps=2000)
    return config
