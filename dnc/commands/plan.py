"""How many labels does a target need? From a pilot of a few labeled samples of each class.

    dnc plan --features=pilot.npz --target=0.05
    dnc plan --features=pilot.npz --target=0.05 --budget=200 --output=plan/

Prints the few-shot curve to expect, how many labels of each class reach the target and the error that no
number of labels removes, and writes a page with the curve. The file is one that `dnc analyze` reads, with a single
labeling. This module is the command; the function `dnc.plan` lives in `dnc.few_shot.plan`.
"""

import logging
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags

from dnc.features.files import read_features
from dnc.few_shot.plan import plan
from dnc.names import clean
from dnc.report import folder
from dnc.report.plan import write_plan

_FEATURES = flags.DEFINE_string("features", None, "npz, npy, Parquet or safetensors file, or a folder of shards.")
_LABELS = flags.DEFINE_string("labels", None, "npy file of labels, with an npy file of features.")
_FEATURES_KEY = flags.DEFINE_string("features_key", "features", "Name of the array or column that holds the features.")
_LABELS_KEY = flags.DEFINE_string("labels_key", None, "Name of the labels', where there are several.")
_TARGET = flags.DEFINE_float("target", 0.05, "Error to reach, mean over classes, between 0 and 1.")
_CONFIDENCE = flags.DEFINE_float("confidence", 0.9, "Of the intervals, between 0 and 1.")
_NORMALIZE = flags.DEFINE_bool("normalize", False, "Divide each row by its Euclidean norm first.")
_BUDGET = flags.DEFINE_integer("budget", 0, "Also say which classes so many more labels should go to.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", "plan", "Folder of the page: new, empty, or an older one.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the measured error's draws and the pilot's parts.", lower_bound=0)


def main() -> None:
    app.run(_run)


def _run(argv: Sequence[str]) -> None:
    if len(argv) > 2 or bool(_FEATURES.value) == (len(argv) == 2):
        raise app.UsageError("name one file of features, dnc plan --features=pilot.npz")
    for chatty in ("fontTools", "jax"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    path, output = pathlib.Path(_FEATURES.value or argv[1]), pathlib.Path(_OUTPUT.value)
    labels_path = pathlib.Path(_LABELS.value) if _LABELS.value else None
    try:
        folder.check(output, [path, *([labels_path] if labels_path else [])])
        file = read_features(path, labels_path, _FEATURES_KEY.value, _LABELS_KEY.value)
        if isinstance(file.labels, dict):
            raise ValueError(f"there are several labelings, {list(file.labels)}: choose one with --labels_key")
        made = plan(
            file.features,
            file.labels,
            class_names=file.class_names,
            target_error=_TARGET.value,
            confidence=_CONFIDENCE.value,
            normalize=_NORMALIZE.value,
            seed=_SEED.value,
        )
        print("\n".join(map(clean, made.summary().split("\n"))))
        allocation = made.allocate(_BUDGET.value, step=max(1, _BUDGET.value // 200)) if _BUDGET.value else None
        if allocation:
            print(f"\n{_BUDGET.value} more labels where they help most (in all, with the pilot's):")
            for name, shots, before in zip(made.classes, allocation.values(), made.counts, strict=True):
                print(f"{clean(name)}: +{shots - before} ({shots})")
            print(f"predicted error: {made.error_of(made.counts.tolist()):.4f} -> {made.error_of(allocation):.4f}")
        page = write_plan(made, output, clean(path.stem), allocation)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {clean(error)}")
    print(f"page: {page}")
