"""SimCLR on scikit-learn's handwritten digits: a real image set that needs no download.

dnc train --config=configs/simclr_digits.py --workdir=runs/simclr_digits

2 cores of an AMD EPYC, 2026-11-22: 4 min 8 s, other programs running beside it. From step 0 to 540, directional CDNV
0.068 -> 0.032, CDNV 2.21 -> 0.80; nearest-center accuracy, 10 shots: 0.74 -> 0.88.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        name="digits",
        resolution=32,
        test_per_class=60,
        augmentation=dict(
            crop_scale=(0.4, 1.0), flip=0.0, jitter=(0.4, 0.4, 0.0, 0.0), jitter_probability=0.8, gray=0.0
        ),
    )
    config.model = dict(depth=18, stem="cifar_s2", width=16, zero_init_residual=False, dtype="float32", remat=False)
    config.objective = dict(name="simclr", temperature=0.2, widths=(256, 128), norm=True)
    config.optimizer = dict(name="adamw", weight_decay=1e-2, clip_norm=None)
    config.schedule = dict(peak=2e-3, warmup=dict(epochs=3), end_fraction=0.0)
    config.train = dict(batch_size=128, duration=dict(epochs=60), accumulate=1, log_every=20, checkpoint_every=200)
    config.measure = dict(shots=(1, 5, 10, 20, 50), repeats=20, normalize=True, train_examples=0)
    config.probe = dict(online=False, learning_rate=1e-3)
    return config
