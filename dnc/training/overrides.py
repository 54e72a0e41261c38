"""Flags over a config file: options that the file leaves out, and what goes when a flag chooses another method."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from dnc import errors
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.sources.by_name import SOURCES
from dnc.models import MODELS, PRESETS
from dnc.objectives import OBJECTIVES
from dnc.training import own_code
from dnc.training.build import PREPARED, Config, parameters
from dnc.training.optimizers import OPTIMIZERS

_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "data": {**SOURCES, "multitask": MultitaskImages},
    "model": MODELS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
}
_SHARED = {
    "data": {*PREPARED, "augmentation", "reading", "broken"},
    "optimizer": {"clip_norm", "weight_decay_end"},
}
_DURATIONS = ("train.duration", "schedule.warmup")
_CHECKED = (*_KNOWN, "probe", "measure")  # sections whose options are checked when they are built


def entries(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of a config with its path, as in ("train.batch_size", 256); placeholders as they are."""
    for key, value in config.items(preserve_field_references=True):
        yield f"{prefix}{key}", value
        if isinstance(value, ConfigDict):
            yield from entries(value, f"{prefix}{key}.")


def settle(config: Config, file: Mapping[str, Any], flags: Collection[str]) -> list[str]:
    """Makes a config whole again after flags have changed it, and locks it; returns what to tell the user.

    A section whose `name` a flag has changed loses the options of the file that the new method does not take; those
    set by flags stay, and are refused later if they do not fit. A duration in one unit replaces that of the file.

    file: the `entries` of the config file. flags: the paths that flags have set. Raises ValueError for a flag that sets
    an entry which is neither in the file nor the option of a method.
    """
    for path in flags:
        section, _, name = path.rpartition(".")
        has_options = (section.partition(".")[0] in _CHECKED and section != "measure") or section in _DURATIONS
        if path not in file and not has_options:
            siblings = [entry.rpartition(".")[2] for entry in file if entry.rpartition(".")[0] == section]
            raise ValueError(f"--config has no entry {path}: {errors.hint(name, siblings)}")
    told = []
    for section, known in _KNOWN.items():
        name = config[section].name
        factory = own_code.load(section, name) if ":" in name else known.get(name)
        if factory is None or name == file.get(f"{section}.name"):
            continue
        taken = ({"name"} | parameters(factory) | _SHARED.get(section, set())) - PRESETS.get(name, {}).keys()
        left_out = [key for key in config[section] if key not in taken and f"{section}.{key}" not in flags]
        for key in left_out:
            del config[section][key]
        if left_out:
            told.append(f"{section}={name}: the config file's {', '.join(sorted(left_out))} are left out")
    for path in _DURATIONS:
        section, _, key = path.partition(".")
        duration = config[section][key]
        if given := [unit for unit in duration if f"{path}.{unit}" in flags and duration[unit] is not None]:
            for unit in set(duration) - set(given):
                del duration[unit]
    config.lock()
    return told
