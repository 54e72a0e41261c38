"""Flags over a config file: another method, an option that the file leaves out, a duration in another unit."""

import pytest

from configs import simclr_digits
from dnc.training.build import build
from dnc.training.overrides import entries, settle


def settled(**flags):
    """The config of a file after flags, and what the user is told."""
    config = simclr_digits.get_config()
    file = dict(entries(config))
    for path, value in flags.items():
        *sections, name = path.split(".")
        section = config
        for key in sections:
            section = section[key]
        section[name] = value
    return config, settle(config, file, flags.keys())


def test_another_method_leaves_out_what_it_does_not_take_and_says_so():
    config, told = settled(**{"objective.name": "vicreg", "optimizer.name": "sgd", "optimizer.momentum": 0.8})
    assert sorted(config.objective) == ["last_bias", "name", "norm", "widths"]
    assert told == [
        "objective=vicreg: the config file's decoupled, temperature are left out",
        "optimizer=sgd: the config file's b1, b2, eps are left out",
    ]
    assert config.is_locked
    build(config)


def test_what_flags_set_stays_and_is_refused_where_it_does_not_fit():
    config, _ = settled(**{"objective.name": "vicreg", "objective.temperature": 0.3})
    with pytest.raises(ValueError, match=r"config\.objective sets 'temperature', which 'vicreg' does not take"):
        build(config)


def test_a_preset_brings_its_own_sizes():
    config, told = settled(**{"model.name": "vit_tiny", "model.image_size": 32, "model.patch_size": 8})
    assert told == ["model=vit_tiny: the config file's depth, stem, width, zero_init_residual are left out"]
    build(config)


def test_another_set_of_images_keeps_how_they_are_prepared():
    config, told = settled(**{"data.name": "npz", "data.train": "set.npz"})
    assert told == ["data=npz: the config file's resolution are left out"]
    assert {"augmentation", "reading", "broken", "image_size", "test_per_class"} <= set(config.data)


@pytest.mark.parametrize("unit", ["steps", "examples"])
def test_a_duration_in_another_unit_replaces_that_of_the_file(unit):
    config, told = settled(**{f"train.duration.{unit}": 1280, f"schedule.warmup.{unit}": 128})
    assert told == []
    assert build(config).total_steps == (1280 if unit == "steps" else 10)


def test_without_flags_nothing_changes():
    config, told = settled()
    assert (config.to_json(), told) == (simclr_digits.get_config().to_json(), [])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.bach_size", "--config has no entry train.bach_size: did you mean 'batch_size'?"),
        ("sed", "--config has no entry sed: did you mean 'seed'?"),
        ("measure.repeats", "--config has no entry measure.repeats"),
    ],
)
def test_an_entry_that_is_neither_in_the_file_nor_an_option_is_refused(path, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        settled(**{path: 8})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("objective.temprature", "'temprature', which 'simclr' does not take: did you mean 'temperature'"),
        ("data.augmentation.flop", "'flop' is not known: did you mean 'flip'"),
        ("optimizer.bb1", "adamw has no hyperparameter 'bb1'"),
        ("train.duration.hours", "unit='hours' is not known"),
    ],
)
def test_an_option_that_a_method_does_not_take_is_refused_when_it_is_built(path, message):
    config, _ = settled(**{path: 1})
    with pytest.raises(ValueError, match=message):
        build(config)


def test_an_option_that_the_file_leaves_out_is_added():
    config, _ = settled(**{"optimizer.name": "sgd", "optimizer.nesterov": True})
    assert config.optimizer.nesterov
    build(config)
