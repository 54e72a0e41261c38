"""Masked autoencoder on ImageNet-1k: ViT-B/16 at 224 pixels, batch 4,096, 1,600 epochs (He et al. 2022).

dnc train --config=configs/mae_imagenet.py --workdir=runs/mae_imagenet --multihost

Not run here: it is sized for a TPU pod slice, and needs `imagenet2012` prepared with TFDS as ArrayRecord. Linear probe
as published, not measured by us: 67.8%.
"""

from ml_collections import ConfigDict

from configs import simclr_imagenet


def get_config() -> ConfigDict:
    config = simclr_imagenet.get_config()
    config.data.augmentation = dict(recipe="mae")
    config.model = dict(
        name="vit_base",
        image_size=224,
        patch_size=16,
        position="sincos2d",
        init="xavier_uniform",
        dtype="bfloat16",
        remat=False,
    )
    config.objective = dict(name="mae", mask_ratio=0.75, decoder_width=512, decoder_depth=8, decoder_heads=16)
    config.optimizer = dict(name="adamw", weight_decay=0.05, b1=0.9, b2=0.95, clip_norm=None)
    config.schedule = dict(peak=2.4e-3, warmup=dict(epochs=40), end_fraction=0.0)  # 1.5e-4 * 4096 / 256
    config.train.duration = dict(epochs=1600)
    config.probe.online = False  # the encoder never sees a whole image in training
    return config
