"""Pretrain an encoder, measuring collapse on the way, and write a report.

python -m dnc.train --config=configs/quickstart.py --workdir=runs/quickstart [--config.train.batch_size=256]
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config().", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, measurements and the report.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from dnc import distributed
    from dnc.training import loop

    logging.set_verbosity(logging.WARNING)  # checkpointing reports every file at INFO
    workdir, mesh = epath.Path(str(_WORKDIR.value)), distributed.data_mesh()
    try:
        training = loop.prepare(_CONFIG.value, workdir, mesh)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")
    loop.run(training, workdir, mesh)


if __name__ == "__main__":
    app.run(main)
