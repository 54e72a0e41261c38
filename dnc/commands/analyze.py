"""Report on features that any framework produced.

    dnc analyze --features=features.npz --output=report/
    dnc analyze --features=features.npy --labels=labels.npy
    dnc analyze simclr.npz vicreg.npz mae.npz --output=report/

Several files, of the same labelings, are compared: which encoder (or checkpoint) transfers best, and which measure
would have predicted it. A folder stands for the shards in it.

    dnc analyze --features=layers.npz          # of dnc embed --layers=all, --features=all or --steps=all

A file of several feature sets makes a page of them by depth: which layer and token serves the labels best.

With --images=photos, the folder whose images `dnc embed --images=photos` read, the report shows the hardest of them.

The file holds `features` [n, d] and `labels` [n], or `labels_NAME` for several labelings of the same samples (see
`dnc.features.files`). This module is the command; the function `dnc.analyze` lives in `dnc.analysis.analyze`.
"""

import json
import logging
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from PIL import Image

from dnc import distributed
from dnc.analysis import progress
from dnc.analysis.analyze import Analysis, analyze
from dnc.analysis.comparison import compare
from dnc.analysis.layers import compare_layers
from dnc.features import sets
from dnc.features.files import feature_sets, read_features
from dnc.names import clean
from dnc.record import HardSample
from dnc.report import folder, thumbnails

_FEATURES = flags.DEFINE_multi_string(
    "features", [], "npz, npy, Parquet or safetensors file, or a folder of shards; or several, with commas or again."
)
_LABELS = flags.DEFINE_string("labels", None, "npy file of labels, with an npy file of features.")
_FEATURES_KEY = flags.DEFINE_string("features_key", "features", "Name of the array or column that holds the features.")
_LABELS_KEY = flags.DEFINE_string("labels_key", None, "Name of the labels'. Default: labels, or all labels_NAME.")
_TASKS = flags.DEFINE_list("tasks", None, "Labelings to analyze, of several; all by default.")
_OUTPUT = flags.DEFINE_string("output", "report", "Folder of the report: new, empty, or an older report.")
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Divide each row by its Euclidean norm first.")
_SHOTS = flags.DEFINE_list("shots", None, "Shots per class, such as 1,5,10. Default: those of 1..100 that fit.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Draws of support samples for the measured error.", lower_bound=1)
_SUPERCLASSES = flags.DEFINE_string("superclasses", None, "JSON file: class name to superclass, measured as well.")
_LEAST_SAMPLES = flags.DEFINE_integer(
    "least_samples", 2, "Classes with fewer are left out, with all their samples, and named.", lower_bound=2
)
_REPLICATES = flags.DEFINE_integer(
    "replicates", 0, "Groups of the jackknife for 95% intervals; 0: none.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of those draws.", lower_bound=0)
_IMAGES = flags.DEFINE_string(
    "images",
    None,
    "Folder of the images, to show the hardest: ids in the file are paths below it. Not for several files.",
)
_NAME = flags.DEFINE_string("name", None, "Title of the report. Default: the file's name. Not for several files.")


def main() -> None:
    app.run(_run)


def _run(argv: Sequence[str]) -> None:
    named = [path for value in _FEATURES.value for path in _split(value)]
    paths = [pathlib.Path(path) for path in [*named, *argv[1:]] if path]
    if not paths:
        raise app.UsageError("no features: name a file, dnc analyze --features=features.npz")
    if _IMAGES.value and len(paths) > 1:
        raise app.UsageError("--images goes with one feature file")
    for chatty in ("fontTools", "jax"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    _tell_stages()
    output = pathlib.Path(_OUTPUT.value)
    if _IMAGES.value and not pathlib.Path(_IMAGES.value).is_dir():
        sys.exit(f"error: --images={clean(_IMAGES.value)} is not a folder: give the folder of the images")
    further = [pathlib.Path(flag.value) for flag in (_LABELS, _SUPERCLASSES) if flag.value]
    try:
        folder.check(output, [*paths, *further])
        several = feature_sets(paths[0]) if len(paths) == 1 and not _FEATURES_KEY.present else []
        if len(several) > 1 and _IMAGES.value:
            raise ValueError("--images goes with one feature set: name it, --features_key=NAME")
        if len(several) > 1:
            keys = {key.removeprefix(sets.PREFIX): key for key in several}
            result = compare_layers({name: _analyze(paths[0], name, key) for name, key in keys.items()})
        elif len(paths) == 1:
            result = _analyze(paths[0], _NAME.value or paths[0].stem)
        else:
            result = compare({name: _analyze(path, name) for name, path in _names(paths).items()})
        print(result.summary())
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {clean(error)}")
    numbers = output / ("layers.json" if several else "analysis.json" if len(paths) == 1 else "comparison.json")
    older = _written(numbers)
    try:
        if isinstance(result, Analysis):
            page = result.to_html(output, {"command": _command_line()}, _pictures())
        else:
            page = result.to_html(output, {"command": _command_line()})
    except OSError as error:
        kept = "" if _written(numbers) == older else f" and in {clean(numbers)}"
        sys.exit(f"error: the page could not be written ({clean(error)}): the numbers are above{kept}")
    print(f"report: {page}")


def _split(value: str) -> list[str]:
    """Paths with commas between them, unless there is a file whose name holds the commas."""
    return [value] if pathlib.Path(value).exists() else value.split(",")


def _written(path: pathlib.Path) -> int | None:
    """When a file was written, in ns; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _tell_stages() -> None:
    """The stages of the analysis, a line each, on stderr."""

    class Stages(logging.StreamHandler):
        def format(self, record: logging.LogRecord) -> str:
            message = super().format(record)
            self.terminator = " " if message.endswith("...") else "\n"
            return message

    progress.LOGGER.handlers = [Stages()]
    progress.LOGGER.setLevel(logging.INFO)
    progress.LOGGER.propagate = False


def _command_line() -> str:
    """The command without folders above the files that it names, which are nobody's business."""
    arguments = (re.sub(r"(?<![^=,])~?/[^=,]*", lambda path: pathlib.Path(path[0]).name, a) for a in sys.argv[1:])
    return shlex.join(["dnc", "analyze", *arguments])


def _analyze(path: pathlib.Path, name: str, key: str | None = None) -> Analysis:
    """key: of the features in the file; that of the flag by default."""
    with progress.stage("reading", clean(path)):
        labels_path = pathlib.Path(_LABELS.value) if _LABELS.value else None
        file = read_features(path, labels_path, key or _FEATURES_KEY.value, _LABELS_KEY.value)
        if _TASKS.value:
            file = file.with_tasks(_TASKS.value)
    return analyze(
        file.features,
        file.labels,
        class_names=file.class_names,
        normalize=_NORMALIZE.value,
        shots=_shots(),
        repeats=_REPEATS.value,
        superclasses=_superclasses(),
        least_samples=_LEAST_SAMPLES.value,
        replicates=_REPLICATES.value,
        seed=_SEED.value,
        mesh=distributed.make_mesh(),
        name=name,
        ids=file.ids,
    )


def _names(paths: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
    """Files by their stem, or, where those repeat, by their path."""
    stems = [path.stem for path in paths]
    names = {path.stem if len(set(stems)) == len(stems) else str(path): path for path in paths}
    if len(names) < len(paths):
        raise ValueError(f"the same file is named twice: {', '.join(map(str, paths))}")
    return names


def _superclasses() -> dict[str, str] | None:
    if _SUPERCLASSES.value is None:
        return None
    try:
        mapping = json.loads(pathlib.Path(_SUPERCLASSES.value).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"--superclasses={_SUPERCLASSES.value} does not exist: name a JSON file") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--superclasses={_SUPERCLASSES.value} is not JSON: {error}") from error
    if not isinstance(mapping, dict):
        raise ValueError(f"--superclasses={_SUPERCLASSES.value} must hold an object, class name to superclass")
    return mapping


def _pictures() -> Callable[[HardSample], Image.Image | None] | None:
    """A sample's image below --images, or None where it cannot be read; without the flag None."""
    if _IMAGES.value is None:
        return None
    from dnc.data.sources.decode import decode

    root = pathlib.Path(_IMAGES.value).resolve()

    def picture(sample: HardSample) -> Image.Image | None:
        if sample.id is None:
            return None
        try:
            path = (root / sample.id).resolve()
            if path.is_relative_to(root) and path.is_file():
                return decode(path, sample.id, thumbnails.SIDE)[0]
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, an endless link, no image
            return None
        return None

    return picture


def _shots() -> list[int] | None:
    if _SHOTS.value is None:
        return None
    if not all(m.strip().isdecimal() for m in _SHOTS.value):
        raise ValueError(f"--shots={','.join(_SHOTS.value)} must be numbers, such as 1,5,10")
    return [int(m) for m in _SHOTS.value]
