"""I-JEPA on ImageNet-1k: ViT-H/14 at 224 pixels, batch 2,048, 300 epochs (Assran et al. 2023).

dnc train --config=configs/ijepa_imagenet.py --workdir=runs/ijepa_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Unlike the
authors, who start at a rate of 2e-4, the warm-up starts at 0, and no residual branch is scaled down at the start.
"""

from ml_collections import ConfigDict

from configs import simclr_imagenet


def get_config() -> ConfigDict:
    config = simclr_imagenet.get_config()
    config.data.augmentation = dict(recipe="mae", crop_scale=(0.3, 1.0), crop_method="bilinear", flip=0.0)
    config.model = dict(
        name="vit",
        image_size=224,
        patch_size=14,
        width=1280,
        depth=32,
        heads=16,
        pool="mean",
        class_token=False,
        position="sincos2d",
        dtype="bfloat16",
        remat=True,
    )
    config.objective = dict(
        name="ijepa", momentum=(0.996, 1.0), predictor_width=384, predictor_depth=12, predictor_heads=16
    )
    config.optimizer = dict(name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=None)
    config.schedule = dict(peak=1e-3, warmup=dict(epochs=40), end_fraction=1e-3)
    config.train.batch_size = 2048
    config.train.duration = dict(epochs=300)
    return config
