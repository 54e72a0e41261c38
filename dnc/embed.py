"""Features of the held-out images from a run's checkpoint, for dnc.analyze or any other tool.

python -m dnc.embed --workdir=runs/quickstart --output=features.npz [--step=100]
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from etils import epath

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of dnc.train.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the newest by default.")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from dnc.training import embedding

    logging.set_verbosity(logging.ERROR)  # checkpointing reports every file
    output = epath.Path(_OUTPUT.value)
    if output.suffix != ".npz":
        raise app.UsageError(f"--output={output}: give a name that ends in .npz")
    try:
        embedded = embedding.embed_checkpoint(epath.Path(_WORKDIR.value), output, _STEP.value)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    n, d = embedded.shape
    print(f"{output}: {n} features of dimension {d} from step {embedded.step}")
    if embedded.measured_normalized:
        print("The run measured L2-normalised features: dnc.analyze --normalize gives its numbers.")


if __name__ == "__main__":
    app.run(main)
