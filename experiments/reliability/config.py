"""The quickstart in small, to be interrupted over and over: seconds of training, a save every few steps."""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    changes = {
        "data.num_examples": 64,
        "data.image_size": 16,
        "data.held_out_renders": 1,
        "model.width": 4,
        "objective.widths": (16, 8),
        "schedule.warmup.steps": 2,
        "train.batch_size": 16,
        "train.duration.steps": 40,
        "train.log_every": 3,
        "train.checkpoint_every": 4,
        "measure.collapse.shots": (1, 5),
        "measure.collapse.repeats": 3,
    }
    config.update_from_flattened_dict(changes)
    return config
