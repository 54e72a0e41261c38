"""The quickstart config, small enough for tests: seconds, not minutes."""

from ml_collections import ConfigDict

from experiments.reliability import config as small

FLAGS = {"train.duration.steps": 8, "train.log_every": 1, "train.checkpoint_every": 3}


def get_config() -> ConfigDict:
    config = small.get_config()
    config.update_from_flattened_dict(FLAGS)
    return config.lock()
