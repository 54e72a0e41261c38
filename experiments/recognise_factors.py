"""Can a supervised network recognise every factor of the multitask images? One short run a factor.

python -m experiments.recognise_factors --workdir=runs/recognise_factors

Prints the held-out accuracy of the nearest-class-centre rule on the trained features, 100 shots a class.
"""

from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath

from configs import supervised_multitask
from dnc.data.multitask import FACTORS
from dnc.training import loop

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for one run a factor.", required=True)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    accuracies = {}
    for factor, classes in FACTORS.items():
        config: Any = supervised_multitask.get_config()
        config.objective.update(task=factor, num_classes=len(classes))
        analysis = loop.train_and_evaluate(config, epath.Path(str(_WORKDIR.value)) / factor)
        accuracies[factor] = 1.0 - float(analysis.tasks[factor].few_shot_error(shots=[100]).mean[0])
    for factor, accuracy in accuracies.items():
        print(f"{factor:8s} {accuracy:.3f}")


if __name__ == "__main__":
    app.run(main)
