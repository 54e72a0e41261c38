"""SimCLR on CIFAR-10: ResNet-18 (3x3 stem), 1,000 epochs, solo-learn's recipe (da Costa et al. 2022).

make data
dnc train --config=configs/simclr_cifar10.py --workdir=runs/simclr_cifar10

Not run here: it is sized for one GPU or TPU. The recipe's online probe, as published, not measured by us: 90.74% on
CIFAR-10, 65.78% on CIFAR-100 (`--config.data.dataset=cifar100`, prepared with TFDS).
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="tfds",
        dataset="packaged_images/cifar10",
        train="train",
        test="test",
        data_dir=config_dict.placeholder(str),
        augmentation=dict(recipe="simclr_cifar"),
    )
    config.model = dict(depth=18, stem="cifar", width=64, zero_init_residual=False, dtype="bfloat16", remat=False)
    config.objective = dict(name="simclr", temperature=0.2, widths=(2048, 256), norm=False)
    config.optimizer = dict(name="lars", weight_decay=1e-4, trust_coefficient=0.02, clip=True, clip_norm=None)
    config.schedule = dict(peak=0.4, warmup=dict(epochs=10), end_fraction=0.0)
    config.train = dict(batch_size=256, duration=dict(epochs=1000), accumulate=1, log_every=50, checkpoint_every=5000)
    config.measure = dict(shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=False, train_examples=10_000)
    config.probe = dict(online=True, learning_rate=1e-3)
    return config
