"""SimCLR on the multitask images: ResNet-18 of width 24, two renders as views, factors kept with probability 0.95.

python -m dnc.train --config=configs/simclr_multitask.py --workdir=runs/simclr_multitask

Not yet run to its end; configs/quickstart.py, its smaller sister, has measured numbers.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="multitask",
        num_examples=12_800,
        image_size=32,
        views="render",
        keep=0.95,
        held_out_renders=4,
        augmentation=dict(),
    )
    config.model = dict(depth=18, stem="cifar_s2", width=24, zero_init_residual=False, dtype="float32")
    config.objective = dict(name="simclr", temperature=0.1, widths=(128,), norm=False)
    config.optimizer = dict(name="adamw", weight_decay=1e-2, clip_norm=None)
    config.schedule = dict(peak=5e-3, warmup=dict(steps=100), end_fraction=0.0)
    config.train = dict(batch_size=128, duration=dict(steps=2500), log_every=20, checkpoint_every=200)
    config.measure = dict(shots=(1, 5, 10, 20, 50, 100), repeats=20, normalize=True)
    return config
