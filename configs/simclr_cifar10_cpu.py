"""SimCLR on CIFAR-10, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
python -m dnc.train --config=configs/simclr_cifar10_cpu.py --workdir=runs/simclr_cifar10_cpu

Not run to its end yet: no numbers.
"""

from ml_collections import ConfigDict

from configs import simclr_cifar10


def get_config() -> ConfigDict:
    config = simclr_cifar10.get_config()
    config.model.update(stem="cifar_s2", width=16, dtype="float32")
    config.objective.update(temperature=0.2, widths=(256, 128))
    config.optimizer = dict(name="adamw", weight_decay=1e-2, clip_norm=None)
    config.schedule = dict(peak=3e-3, warmup=dict(epochs=1), end_fraction=0.0)
    config.train = dict(batch_size=256, duration=dict(epochs=12), accumulate=1, log_every=50, checkpoint_every=500)
    config.measure.train_examples = 5000
    return config
