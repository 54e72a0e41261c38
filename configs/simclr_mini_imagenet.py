"""SimCLR on mini-ImageNet (Vinyals et al. 2016): ResNet-50 at 224 pixels, the set of the paper's training figures.

dnc train --config=configs/simclr_mini_imagenet.py --workdir=runs/simclr_mini_imagenet \
    --config.data.train=mini_imagenet

Not run here: the set is not in a package registry. `mini_imagenet` is a folder of 100 class folders, 600 images each;
100 of each class are held out. With tables of files instead: see `dnc.data.sources.by_name.folder`.
"""

from ml_collections import ConfigDict

from configs import simclr_imagenet


def get_config() -> ConfigDict:
    config = simclr_imagenet.get_config()
    config.data = dict(
        name="folder", train="mini_imagenet", test_per_class=100, augmentation=dict(recipe="simclr", size=224)
    )
    config.train.batch_size = 512
    config.schedule.peak = 0.6  # 0.3 * 512 / 256
    config.train.duration = dict(epochs=1000)
    config.measure.shots = (1, 5, 10, 20, 50)
    return config
