"""The quickstart config, small enough for tests: seconds, not minutes."""

from ml_collections import ConfigDict

from configs import quickstart

FLAGS = {
    "data.num_examples": 64,
    "data.image_size": 16,
    "data.held_out_renders": 1,
    "model.width": 4,
    "objective.widths": (16, 8),
    "schedule.warmup.steps": 2,
    "train.batch_size": 16,
    "train.duration.steps": 8,
    "train.log_every": 1,
    "train.checkpoint_every": 3,
    "measure.shots": (1, 5),
    "measure.repeats": 3,
}


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.update_from_flattened_dict(FLAGS)
    return config.lock()
