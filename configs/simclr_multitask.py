"""SimCLR on the multitask images: ResNet-18 of width 24, two renders as views, factors kept with probability 0.95.

python -m dnc.train --config=configs/simclr_multitask.py --workdir=runs/simclr_multitask

Not yet run to its end; configs/quickstart.py, its smaller sister, has measured numbers.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.num_examples = 12_800
    config.model.width = 24
    config.schedule.warmup = dict(steps=100)
    config.train.duration = dict(steps=2500)
    return config
