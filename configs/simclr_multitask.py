"""SimCLR on the multitask images: ResNet-18 of width 24, two renders as views, factors kept with probability 0.95.

dnc train --config=configs/simclr_multitask.py --workdir=runs/simclr_multitask

One core of an AMD EPYC, 2026-11-22, another run on the second: 53 min 36 s. From step 0 to 4,500, directional CDNV:
color 0.155 -> 0.0014, shape 2.71 -> 0.0021, size 0.73 -> 0.0027, style 2.06 -> 0.0017; CDNV: 8.3 -> 3.6, 196 -> 2.8,
43 -> 2.1, 89 -> 2.3. Nearest-center accuracy at 10 / 100 shots: color 0.87 / 1.00, shape 0.93 / 1.00, size 0.99 / 1.00,
style 0.98 / 1.00. Median |cos| of axes of different factors: 2^-5.7 to 2^-6.7. Two-class exact Cantelli at 5 shots:
0.39, 0.30, 0.16, 0.20, where Luthra et al. (2026) is at 1.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.num_examples = 12_800
    config.model.width = 24
    config.schedule.warmup = dict(steps=100)
    config.objective.temperature = 0.07
    config.train.duration = dict(steps=4500)
    return config
