"""SigLIP on a table of images and captions: ViT-B/16 at 224 pixels, batch 32,768 (Zhai et al. 2023).

dnc train --config=configs/siglip_pairs.py --workdir=runs/siglip_pairs --multihost \
    --config.data.train=images --config.data.train_table=captions.parquet --config.data.test=imagenet/val

Not run here: it is sized for a TPU pod slice. Data as for `clip_pairs`. As published: the loss, the batch, b2, both
Transformers' sizes and attention pooling. Otherwise: the remaining settings of the optimizer, and the number of steps
(9 billion pairs), are a choice to start from; captions are 128 bytes at most; the loss's bias is that of the batch size
(see `dnc.objectives.siglip`).
"""

from ml_collections import ConfigDict

from configs import clip_pairs


def get_config() -> ConfigDict:
    config = clip_pairs.get_config()
    config.model = dict(
        name="vit_base",
        image_size=224,
        patch_size=16,
        pool="map",
        class_token=False,
        activation="gelu_tanh",
        init="xavier_uniform",
        dtype="bfloat16",
        remat=True,
    )
    config.objective = dict(
        name="siglip", features=768, text_width=768, text_depth=12, text_heads=12, context_length=128, remat=True
    )
    config.optimizer = dict(name="adamw", weight_decay=1e-4, b2=0.95, clip_norm=1.0)
    config.schedule = dict(peak=1e-3, warmup=dict(steps=10_000), end_fraction=0.0)
    config.train.duration = dict(steps=274_658)
    return config
