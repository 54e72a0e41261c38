"""Report on features that any framework produced.

    python -m dnc.analyze --features=features.npz --output=report/
    python -m dnc.analyze --features=features.npy --labels=labels.npy

The file holds `features` [n, d] and `labels` [n], or `labels_NAME` for several labelings of the same samples (see
`dnc.feature_files`). This module is the command; the function `dnc.analyze` lives in `dnc.analysis`.
"""

import logging
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags

from dnc.analysis import analyze
from dnc.feature_files import read_features

_FEATURES = flags.DEFINE_string("features", None, "npz, npy, Parquet or safetensors file.", required=True)
_LABELS = flags.DEFINE_string("labels", None, "npy file of labels, with an npy file of features.")
_OUTPUT = flags.DEFINE_string("output", "report", "Folder of the report: new, empty, or an older report.")
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Divide each row by its Euclidean norm first.")
_SHOTS = flags.DEFINE_list("shots", None, "Shots a class, such as 1,5,10. Default: those of 1..100 that fit.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Draws of support samples for the measured error.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of those draws.", lower_bound=0)
_NAME = flags.DEFINE_string("name", None, "Title of the report. Default: the file's name.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    for chatty in ("fontTools", "jax"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    output = pathlib.Path(_OUTPUT.value)
    try:
        _check_output(output)
        path = pathlib.Path(_FEATURES.value)
        file = read_features(path, pathlib.Path(_LABELS.value) if _LABELS.value else None)
        result = analyze(
            file.features,
            file.labels,
            class_names=file.class_names,
            normalize=_NORMALIZE.value,
            shots=_shots(),
            repeats=_REPEATS.value,
            seed=_SEED.value,
            name=_NAME.value or path.stem,
        )
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")
    page = result.to_html(output)
    print(result.summary())
    print(f"report: {page}")


def _shots() -> list[int] | None:
    if _SHOTS.value is None:
        return None
    if not all(m.strip().isdecimal() for m in _SHOTS.value):
        raise ValueError(f"--shots={','.join(_SHOTS.value)} must be numbers, such as 1,5,10")
    return [int(m) for m in _SHOTS.value]


def _check_output(output: pathlib.Path) -> None:
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"--output={output} is a file: name a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / "index.html").exists():
        raise FileExistsError(f"--output={output} holds other files: name a new or empty folder")


if __name__ == "__main__":
    app.run(main)
