"""SimCLR on ImageNet-1k: ResNet-50 at 224 pixels, batch 4,096, 100 epochs (Chen et al. 2020).

dnc train --config=configs/simclr_imagenet.py --workdir=runs/simclr_imagenet --multihost
dnc train --config=configs/simclr_imagenet.py --compile_for=v5e:16x16      # what it takes, without a TPU

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Linear probe
as published, not measured by us: 64.5% after 100 epochs, 69.1% after 1,000.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="tfds",
        dataset="imagenet2012",
        train="train",
        test="validation",
        data_dir=config_dict.placeholder(str),
        held_out_examples=10_000,
        augmentation=dict(recipe="simclr"),
    )
    config.model = dict(depth=50, stem="imagenet", width=64, zero_init_residual=True, dtype="bfloat16", remat=False)
    config.objective = dict(name="simclr", temperature=0.1, widths=(2048, 128), norm=True)
    config.optimizer = dict(name="lars", weight_decay=1e-6, trust_coefficient=0.001, clip=False, clip_norm=None)
    config.schedule = dict(peak=4.8, warmup=dict(epochs=10), end_fraction=0.0)  # 0.3 * 4096 / 256
    config.train = dict(batch_size=4096, duration=dict(epochs=100), accumulate=1, log_every=50, checkpoint_every=1000)
    config.measure = dict(shots=(1, 2, 5), repeats=20, normalize=False, train_examples=10_000)
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
