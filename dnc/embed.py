"""Features of images from an encoder, for dnc.analyze or any other tool.

    python -m dnc.embed --workdir=runs/quickstart --output=features.npz                  # a run's held-out images
    python -m dnc.embed --workdir=runs/simclr --images=photos --output=features          # any images
    python -m dnc.embed --workdir=runs/simclr --images=tfds:cifar100:test --output=features --dtype=float16

Interrupted, the same command goes on. A file that cannot be read is named once and left out. With several processes,
each reads its share of the images.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from etils import epath

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of dnc.train: its encoder.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of the run to use; the newest by default.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "A folder of images (one folder a class, or none), a CSV or Parquet table of files and labels, an .npz file, or "
    "tfds:NAME:SPLIT. By default the run's held-out images.",
)
_ROOT = flags.DEFINE_string("root", None, "Folder that a table's paths start from; by default the table's own.")
_LABELS = flags.DEFINE_bool("labels", True, "Take the images' labels, where they have some.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write, or a folder of shards.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the stored features.")
_SHARD_SIZE = flags.DEFINE_integer("shard_size", 50_000, "Images a shard; an interruption loses at most one.")
_BROKEN = flags.DEFINE_enum("broken", "skip", ["skip", "raise"], "What to do with a file that cannot be read.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the other processes (by itself on a TPU pod).")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of a run of dnc.train")
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    try:
        _embed(epath.Path(_WORKDIR.value), pathlib.Path(_OUTPUT.value))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def _embed(workdir: epath.Path, output: pathlib.Path) -> None:
    from dnc import distributed
    from dnc.data.broken import BrokenFiles
    from dnc.data.by_name import open_images
    from dnc.embedding import embed
    from dnc.training.embedding import checkpoint_encoder, load_run

    distributed.initialize(_MULTIHOST.value)
    mesh = distributed.make_mesh()
    training = load_run(workdir)
    if _IMAGES.value:
        source, title = open_images(_IMAGES.value, _ROOT.value, _LABELS.value), _IMAGES.value
    else:
        source, title = training.data.held_out_images(), "the run's held-out images"
    encoder = checkpoint_encoder(training, workdir, mesh, _STEP.value)
    broken = BrokenFiles(_BROKEN.value)
    made = embed(
        encoder, source, output, mesh, title=title, dtype=_DTYPE.value, shard_size=_SHARD_SIZE.value, broken=broken
    )
    if not distributed.is_lead():
        return
    print(f"{output}: {made.readable:,} features of dimension {made.dimension} from step {encoder.identity['step']}")
    if made.readable < made.images:
        print(f"{made.images - made.readable} of {made.images} images could not be read: see above.")
    if training.config.measure.normalize:
        print("The run measured L2-normalised features: dnc.analyze --normalize gives its numbers.")


if __name__ == "__main__":
    app.run(main)
