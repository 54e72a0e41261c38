"""Read features and labels that any framework wrote: npz, npy, Parquet, safetensors, or a folder of such shards.

Nothing is ever unpickled.

Every format holds an array `features` and either `labels` or, for several labelings, `labels_NAME` for each. An npz
file may name the classes that integer labels index: `class_names`, or `class_names_NAME`, string arrays.
"""

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnc import errors

SUFFIXES = (".npz", ".npy", ".parquet", ".safetensors")


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Arguments of `dnc.analyze`: labels are one array, or a dict for several labelings."""

    features: Any
    labels: Any
    class_names: Any = None

    def with_tasks(self, tasks: Sequence[str]) -> "FeatureFile":
        """Only these labelings of several. Raises ValueError for one that is not there."""
        labels = self.labels if isinstance(self.labels, Mapping) else {}
        errors.check_known("tasks", tasks, labels)
        names = {task: names for task, names in (self.class_names or {}).items() if task in tasks}
        return FeatureFile(self.features, {task: labels[task] for task in tasks}, names or None)


def read_features(path: pathlib.Path, labels_path: pathlib.Path | None = None) -> FeatureFile:
    """Read a feature file; `labels_path` is the npy file of labels that goes with an npy file of features.

    A folder stands for the npz, Parquet or safetensors files in it, in the order of their names: shards of one set,
    with the same arrays, dimensions and class names.

    Raises FileNotFoundError, or ValueError naming the file: unknown format, damaged or pickled content, no
    `features` or labels in it.
    """
    if path.is_dir() and labels_path is None:
        return _read_folder(path)
    for file in (path, labels_path):
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"{file} does not exist or is not a file")
    if (path.suffix == ".npy") != (labels_path is not None):
        raise ValueError(
            "an npy file of features and an npy file of labels go together: --features=features.npy --labels=labels.npy"
        )
    if labels_path is not None:
        return FeatureFile(_read_npy(path), _read_npy(labels_path))
    readers = {".npz": _read_npz, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise ValueError(f"{path} has an unknown format: use one of {', '.join(SUFFIXES)}")
    return _arguments(readers[path.suffix](path), path)


def _read_folder(folder: pathlib.Path) -> FeatureFile:
    suffixes = (".npz", ".parquet", ".safetensors")
    shards = sorted(file for file in folder.iterdir() if file.suffix in suffixes and not file.name.startswith("."))
    expected = re.search(r"-of-(\d{5})$", shards[0].stem) if shards else None
    if expected and len(shards) != int(expected[1]):
        raise ValueError(f"{folder} holds {len(shards)} of {int(expected[1])} shards: embed the rest first")
    if not shards:
        raise FileNotFoundError(f"{folder} holds no npz, Parquet or safetensors files")
    parts = [read_features(shard) for shard in shards]
    first = parts[0]
    for shard, part in zip(shards, parts, strict=True):
        if _layout(part) != _layout(first):
            raise ValueError(
                f"{shard} holds other arrays than {shards[0]}: {_layout(part)} and {_layout(first)}; shards of one set "
                "have the same labelings, dimension and class names"
            )
    features = np.concatenate([np.asarray(part.features) for part in parts])
    if not isinstance(first.labels, Mapping):
        return FeatureFile(features, np.concatenate([np.asarray(p.labels) for p in parts]), first.class_names)
    labels = {task: np.concatenate([np.asarray(part.labels[task]) for part in parts]) for task in first.labels}
    return FeatureFile(features, labels, first.class_names)


def _layout(part: FeatureFile) -> tuple[Any, ...]:
    labelings = sorted(part.labels) if isinstance(part.labels, Mapping) else "labels"
    return labelings, np.shape(part.features)[1:], part.class_names


def _arguments(arrays: Mapping[str, Any], path: pathlib.Path) -> FeatureFile:
    if "features" not in arrays:
        raise ValueError(f"{path} holds no 'features': it has {', '.join(sorted(arrays)) or 'nothing'}")
    tasks = [key.removeprefix("labels_") for key in arrays if key.startswith("labels_")]
    if tasks and "labels" in arrays:
        raise ValueError(f"{path} holds both 'labels' and 'labels_{tasks[0]}': keep one kind")
    if tasks:
        labels = {task: arrays[f"labels_{task}"] for task in tasks}
        names = {task: arrays[f"class_names_{task}"] for task in tasks if f"class_names_{task}" in arrays}
        return FeatureFile(arrays["features"], labels, {k: v.tolist() for k, v in names.items()} or None)
    if "labels" not in arrays:
        raise ValueError(f"{path} holds no 'labels' or 'labels_NAME': it has {', '.join(sorted(arrays))}")
    names = arrays.get("class_names")
    return FeatureFile(arrays["features"], arrays["labels"], None if names is None else names.tolist())


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable npy file (pickled content is refused): {error}") from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray | None]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            wanted = ("features", "labels", "class_names")
            return {key: archive[key] if key.startswith(wanted) else None for key in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable npz file (pickled content is refused): {error}") from error


def _read_safetensors(path: pathlib.Path) -> dict[str, Any]:
    import safetensors
    from safetensors.flax import load_file

    try:
        return dict(load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _read_parquet(path: pathlib.Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    arrays = {}
    for key in table.column_names:
        if key == "features":
            arrays[key] = _list_column(table.column(key).combine_chunks(), path)
        elif key == "labels" or key.startswith("labels_"):
            column = table.column(key)
            if column.null_count:
                raise ValueError(f"{path} column {key!r} has {column.null_count} missing values")
            arrays[key] = np.asarray(column.to_pylist() if pa.types.is_string(column.type) else column)
    return arrays


def _list_column(column: Any, path: pathlib.Path) -> np.ndarray:
    """A column of equally long lists as a matrix."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(f"{path} column 'features' has {column.null_count} missing rows")
    if pa.types.is_fixed_size_list(column.type):
        lengths = [column.type.list_size]
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = column.value_lengths().unique().to_pylist()
    else:
        raise ValueError(f"{path} column 'features' must hold a list per row, got {column.type}")
    if len(lengths) != 1:
        raise ValueError(f"{path} column 'features' must hold equally long lists, got lengths {lengths[:5]}")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])
