"""DINO on ImageNet-1k: ViT-S/16, two views of 224 pixels and eight of 96, batch 512, 100 epochs (Caron et al. 2021).

dnc train --config=configs/dino_imagenet.py --workdir=runs/dino_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord.
Nearest-neighbor accuracy as published, not measured by us: 69.3%. The authors clip the gradient of every parameter to
norm 3 by itself; here the gradient as a whole has at most that norm.
"""

from ml_collections import ConfigDict

from configs import simclr_imagenet


def get_config() -> ConfigDict:
    config = simclr_imagenet.get_config()
    config.data.augmentation = dict(recipe="dino")
    config.model = dict(name="vit_small", image_size=224, patch_size=16, drop_path=0.1, dtype="bfloat16", remat=False)
    config.objective = dict(
        name="dino",
        prototypes=65536,
        student_temperature=0.1,
        teacher_temperature=(0.04, 0.04),
        momentum=(0.996, 1.0),
        freeze_last_layer=0.01,
        centering="mean",
    )
    config.optimizer = dict(name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0)
    config.schedule = dict(peak=1e-3, warmup=dict(epochs=10), end_fraction=1e-3)  # 5e-4 * 512 / 256
    config.train.batch_size = 512
    config.train.duration = dict(epochs=100)
    return config
