"""VICReg on the multitask images: ResNet-18 of width 24, two renders of the same factors as views.

dnc train --config=configs/vicreg_multitask.py --workdir=runs/vicreg_multitask

One core of an AMD EPYC, 2026-11-22, another run on the second: 49 min 4 s. Shape was not learned. Step 0 to 4,000:
directional CDNV: color 0.155 -> 0.017, shape 2.71 -> 4.53, size 0.73 -> 0.026, style 2.06 -> 0.071; CDNV: 8.3 -> 4.8,
196 -> 119, 43 -> 4.0, 89 -> 4.9. Nearest-center accuracy at 10 / 100 shots: color 0.74 / 0.99, shape 0.20 / 0.21,
size 0.83 / 0.97, style 0.74 / 0.86.
"""

from ml_collections import ConfigDict

from configs import simclr_multitask


def get_config() -> ConfigDict:
    config = simclr_multitask.get_config()
    config.data.keep = 1.0
    config.objective = dict(name="vicreg", widths=(512, 512, 512))
    config.train.duration = dict(steps=4000)
    return config
