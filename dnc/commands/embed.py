"""Features of images from an encoder, for dnc.analyze or any other tool.

    dnc embed --workdir=runs/quickstart --output=features.npz                  # a run's held-out images
    dnc embed --workdir=runs/simclr --images=photos --output=features          # any images
    dnc embed --pretrained=facebook/dinov2-base --images=photos --output=features --precision=bfloat16
    dnc embed --workdir=runs/simclr --images=tfds:cifar100:test --output=features --dtype=float16
    dnc embed --pretrained=facebook/dinov2-base --features=all --layers=all --images=photos --output=layers.npz
    dnc embed --workdir=runs/simclr --layers=all --output=layers.npz           # every block, and the projector
    dnc embed --workdir=runs/simclr --steps=all --output=steps.npz             # backbone and projector over training

The last three write several feature sets into one output; `dnc analyze` compares them.

Interrupted, the same command goes on; done, it only replaces labels that were corrected. An image that cannot be
decoded is named once and left out. With several processes, each reads its share of the images. Exit codes: 74 where
files can no longer be written (a full disk), 130 after Ctrl-C, 1 after any other error; whole shards are kept.

A run's folder is data and may come from anyone: it executes nothing that --import does not name, and opens none of the
paths in its config without --run_images.
"""

import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import app, flags, logging
from etils import epath

from dnc import distribution

if TYPE_CHECKING:
    from dnc.features.sets import Choice

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of dnc train: its encoder.")
_PRETRAINED = flags.DEFINE_string(
    "pretrained", None, "Or a published encoder: its name on the Hugging Face Hub, a folder, or a safetensors file."
)
_FEATURES = flags.DEFINE_string(
    "features",
    None,
    'Which feature of a published encoder: "cls", "mean", ..., or "all"; the default depends on the family.',
)
_LAYERS = flags.DEFINE_enum(
    "layers", "last", ["last", "all"], "Features of the last layer, or of every layer as so many feature sets."
)
_STEPS = flags.DEFINE_list(
    "steps", None, "Backbone and projector of a run at these checkpoints, such as 0,100,1000, or all."
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", ["float32", "bfloat16"], "Precision of a published encoder's computations."
)
_IMPORT = flags.DEFINE_multi_string(
    "import", [], "Python file or module of your own whose classes the run's config names; it is executed. Repeatable."
)
_RUN_IMAGES = flags.DEFINE_bool(
    "run_images", False, "Open the run's own images at the paths in its config: for a run that you trust."
)
_STEP = flags.DEFINE_integer("step", None, "Checkpoint of the run to use; the newest by default.")
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "A folder of images (one folder per class, or none), a CSV or Parquet table of files and labels, an .npz file, or "
    "tfds:NAME:SPLIT. By default the run's held-out images, see --run_images.",
)
_ROOT = flags.DEFINE_string("root", None, "Folder that a table's paths start from; by default the table's own.")
_LABELS = flags.DEFINE_bool("labels", True, "Take the images' labels; --nolabels leaves them out.")
_TASKS = flags.DEFINE_list("tasks", None, "Labelings to take, such as a table's columns color,shape; all by default.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write, or a folder of shards.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Dtype of the stored features.")
_SHARD_SIZE = flags.DEFINE_integer("shard_size", 50_000, "Images per shard; an interruption loses at most one shard.")
_BROKEN = flags.DEFINE_float(
    "broken", 0.01, "Largest share of images that may be left out because they cannot be decoded; 0 stops at the first."
)
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the other processes (automatic on TPU pods).")


def main() -> None:
    app.run(_run)


def _run(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    if bool(_WORKDIR.value) == bool(_PRETRAINED.value):
        raise app.UsageError("give --workdir, the folder of a run of dnc train, or --pretrained: one of the two")
    if _WORKDIR.value and (_FEATURES.present or _PRECISION.present):
        raise app.UsageError("--features and --precision apply to published encoders, not to a run")
    if _STEPS.value and (_PRETRAINED.value or _STEP.present or _LAYERS.value == "all"):
        raise app.UsageError("--steps applies to a run, without --step and --layers")
    if _TASKS.value and not _LABELS.value:
        raise app.UsageError("--tasks chooses labelings, and --nolabels takes none: give one of the two")
    if _PRETRAINED.value and not _IMAGES.value:
        raise app.UsageError("--images is missing: what to embed")
    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    from dnc import distributed, files
    from dnc.data.sources.broken import BrokenFiles
    from dnc.data.sources.by_name import open_images
    from dnc.features.embedding import embed

    output = pathlib.Path(str(_OUTPUT.value))
    try:
        distributed.initialize(_MULTIHOST.value)
        mesh = distributed.make_mesh()
        source = open_images(_IMAGES.value, _ROOT.value, _tasks()) if _IMAGES.value else None
        encoder, own, remark = _published(mesh) if _PRETRAINED.value else _of_run(mesh)
        made = embed(
            encoder,
            own if source is None else source,
            output,
            mesh,
            title=_title(),
            dtype=_DTYPE.value,
            shard_size=_SHARD_SIZE.value,
            broken=BrokenFiles(_BROKEN.value),
        )
    except (OSError, ValueError) as error:
        if files.is_disk_error(error):
            print(f"error: {error}\nThe whole shards are kept: make room, then start again", file=sys.stderr)
            sys.exit(files.CANNOT_WRITE)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on after the last whole shard", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if distributed.is_lead():
        several = f" in {len(encoder.sets)} sets" if encoder.sets else ""
        print(f"{output}: {made.readable:,} features of dimension {made.dimension}{several} from {remark}")
        if made.readable < made.images:
            print(f"{made.images - made.readable} of {made.images} images could not be decoded and are left out.")


def _tasks() -> list[str] | tuple[()] | None:
    return _TASKS.value if _LABELS.value else ()


def _title() -> str:
    """The images, as features are recorded to be of them."""
    if not _IMAGES.value:
        return "the run's held-out images"
    images = str(pathlib.Path(_IMAGES.value))  # without "./" and a last "/"
    return f"{images} below {pathlib.Path(_ROOT.value)}" if _ROOT.value else images


def _of_run(mesh: Any) -> tuple[Any, Any, str]:
    """The encoder of the run, its held-out images, and what to say of it."""
    from dnc.data.sources.subset import Subset

    with distribution.extra("train"):
        from dnc.training import own_code
        from dnc.training.run_encoder import checkpoint_encoder, load_run, trajectory_encoder

    workdir = epath.Path(str(_WORKDIR.value))
    imported = own_code.import_named(_IMPORT.value)
    training = load_run(workdir, images=_IMAGES.value is None, trusted=_RUN_IMAGES.value, imported=imported)
    if _STEPS.value:
        encoder = trajectory_encoder(training, workdir, mesh, _steps())
        remark = f"steps {', '.join(map(str, encoder.identity['steps']))}"
    else:
        encoder = checkpoint_encoder(training, workdir, mesh, _STEP.value, _choice())
        remark = f"step {encoder.identity['step']}"
    if training.config.measure.get("collapse", {}).get("normalize"):
        remark += "\nThe run measured L2-normalized features: dnc analyze --normalize gives its numbers."
    if _IMAGES.value:
        return encoder, None, remark
    own = training.data.held_out_images()
    return encoder, Subset(own, np.arange(len(own)), _tasks()), remark


def _published(mesh: Any) -> tuple[Any, Any, str]:
    from dnc.features.embedding import published_encoder
    from dnc.models.pretrained.load import load_pretrained

    choice = _choice()
    features = None if choice else _FEATURES.value
    pretrained = load_pretrained(str(_PRETRAINED.value), features=features, dtype=_PRECISION.value)
    encoder = published_encoder(pretrained, mesh, choice)
    names = [*encoder.sets]
    taken = f"{names[0]} to {names[-1]}" if names else pretrained.features
    return encoder, None, f"{pretrained.name} ({pretrained.family}, {taken})"


def _choice() -> "Choice | None":
    """The layers and tokens that the flags name, None for the encoder's own feature."""
    from dnc.features.sets import Choice

    if _LAYERS.value == "last" and _FEATURES.value != "all":
        return None
    return Choice(_LAYERS.value == "all", None if _FEATURES.value == "all" else _FEATURES.value)


def _steps() -> list[int] | None:
    if _STEPS.value == ["all"]:
        return None
    steps = _STEPS.value or []
    if not all(step.strip().isdecimal() for step in steps):
        raise ValueError(f"--steps={','.join(steps)} must be numbers, such as 0,100,1000, or all")
    return [int(step) for step in steps]
