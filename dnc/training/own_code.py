"""Code of the user's own that a config names, "package.module:Class": where it is found, and when it is executed.

A config file is code, and what it names is executed. A run's folder is data, and may come from anyone: what its config
names is executed only where the user imports it.
"""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any


def load(section: str, name: str) -> Callable[..., Any]:
    """The class or function that "package.module:Class" names. Raises ValueError, naming the section, for no such."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # found, but what it imports is not
        raise ValueError(
            f"config.{section}.name={name!r}: there is no module {module!r}. Put it beside the config file, or where "
            "PYTHONPATH points"
        ) from error
    except AttributeError as error:
        raise ValueError(f"config.{section}.name={name!r}: {module} has no {attribute!r}") from error


def find_beside(config_file: str) -> None:
    """Modules in the folder of a config file can be imported, after all others."""
    sys.path.append(os.path.dirname(os.path.abspath(config_file.partition(":")[0])))


def import_named(names: Iterable[str]) -> frozenset[str]:
    """Import modules, given by name or as Python files, and return their names.

    Raises ValueError for one that does not exist.
    """
    modules = set()
    for name in names:
        if name.endswith(".py"):
            if not pathlib.Path(name).is_file():
                raise ValueError(f"--import={name} does not exist: name a Python file, or a module")
            find_beside(name)
            name = pathlib.Path(name).stem
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"--import={name}: {error}; name a Python file, or an importable module") from error
        modules.add(name)
    return frozenset(modules)


def refuse_others(config: Any, sections: Sequence[str], allowed: Collection[str]) -> None:
    """Raises ValueError where a section of a run's config names code of modules that are not `allowed`.

    What such a module has itself imported from elsewhere is not its own: a config could call it with any arguments.
    """
    for section in sections:
        name = str(config[section].name)
        module, colon, attribute = name.partition(":")
        if colon and module in allowed:
            owner = getattr(getattr(sys.modules[module], attribute, None), "__module__", module)
            if not f"{owner}.".startswith(f"{module}."):
                raise ValueError(f"the run's {section} is {name!r}, which {module} imports from {owner}: refused")
        elif colon:
            remedy = f"PYTHONPATH=. dnc embed --import={module}" if "." in module else f"dnc embed --import={module}.py"
            raise ValueError(f"the run's {section} is {name!r}, its author's own code: if you trust it, say {remedy}")
