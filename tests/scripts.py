"""Scripts as modules: two of them may define flags of the same name, which absl refuses in one process."""

import importlib
from types import ModuleType

from absl import flags


def imported(name: str) -> ModuleType:
    """The module; its flags are forgotten again."""
    module = importlib.import_module(name)
    for flag in list(flags.FLAGS.flags_by_module_dict().get(module.__name__, [])):  # which deleting shortens
        delattr(flags.FLAGS, flag.name)
    return module
