"""The README's first picture: measured, predicted, guaranteed and certified few-shot error of one set of features.

python -m experiments.four_numbers --features=features.npz --title="EfficientNet-Lite0, CIFAR-10" \
  --output=docs/figures/four_numbers.png

Features as `experiments.embed_registry_encoders` makes them; rows of length 1. Also prints the numbers as a table.
"""

import pathlib

from absl import flags
from matplotlib.figure import Figure

import dnc
from dnc import files
from dnc.features.files import read_features
from dnc.report import shots, style
from experiments import common

_FEATURES = flags.DEFINE_string("features", None, "A feature file with a single labeling.", required=True)
_TITLE = flags.DEFINE_string("title", None, "What the features are.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The PNG to write.", required=True)
_REPEATS = flags.DEFINE_integer("repeats", 100, "Draws of support samples.", lower_bound=1)


def main() -> None:
    file = read_features(pathlib.Path(str(_FEATURES.value)))
    result = dnc.analyze(file.features, file.labels, normalize=True, repeats=_REPEATS.value)
    (task,) = result.record.tasks.values()
    heading = f"{_TITLE.value}: {task.num_classes} classes"
    with style.theme():
        figure = Figure(figsize=shots.PANEL)
        shots.draw(figure, task, "classes", heading, None, shots.tightest(task, "classes"))
        picture = style.render(figure, "four_numbers", "Measured, predicted, guaranteed and certified few-shot error")
    with files.replacing(str(_OUTPUT.value)) as scratch:
        scratch.write_bytes(picture.png)
    print(result.summary())


if __name__ == "__main__":
    common.main(main)
