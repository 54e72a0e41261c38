"""The distribution, its version, and the extras that the light core does without."""

from types import TracebackType

NAME = "directional-neural-collapse"  # of the distribution; `dnc` on the package index is another project
VERSION = "0.1.0"

# The modules that each extra of pyproject.toml brings, of those the package imports.
_PRETRAINED = {"flax", "huggingface_hub", "tqdm"}
EXTRAS = {
    "pretrained": _PRETRAINED,
    "train": _PRETRAINED
    | {"array_record", "grain", "ml_collections", "orbax", "sklearn", "tensorboardX", "tensorflow_datasets"},
    "parquet": {"pyarrow"},
}


class MissingExtraError(ModuleNotFoundError):
    """A module is missing that an extra brings."""


class extra:
    """Imports in the block raise MissingExtraError, in one line that says what to install, where the extra is missing.

    with distribution.extra("parquet"):
        import pyarrow
    """

    def __init__(self, name: str) -> None:
        self._name, self._modules = name, EXTRAS[name]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        module = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        if module.partition(".")[0] in self._modules:
            message = f"{module} is not installed: in the clone of {NAME}, pip install '.[{self._name}]'"
            raise MissingExtraError(message, name=module) from error
