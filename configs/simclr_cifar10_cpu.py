"""SimCLR on CIFAR-10, sized for two CPU cores: ResNet-18 of width 16 with a stride-2 stem.

make data
dnc train --config=configs/simclr_cifar10_cpu.py --workdir=runs/simclr_cifar10_cpu

One core of two of an AMD EPYC, other programs beside it, 2026-11-22: 70 minutes of training, in three parts. From step
0 to 2,340, held-out images: directional CDNV 8.04 -> 0.50 (16 times less), CDNV 65.6 -> 10.2 (6.4 times);
nearest-center accuracy at 100 shots 0.39, online linear probe 0.44, and 0.87 on animals against vehicles.
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
