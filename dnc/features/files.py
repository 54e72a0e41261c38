"""Read features and labels that any framework wrote: npz, npy, Parquet, safetensors, or a folder of such shards.

Nothing is ever unpickled, every number is read in its own dtype, and what a header claims is compared with the file's
size before memory is asked for.

Every format holds an array `features` and either `labels` or, for several labelings, `labels_NAME` for each; arrays of
other names are read where they are named. An npz file may name the classes that integer labels index: `class_names`,
or `class_names_NAME`, string arrays. `ids`, a name for each sample, are read where they are plain values, one a row.
"""

import collections
import dataclasses
import math
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from dnc import distribution, errors
from dnc.features.sets import PREFIX

SUFFIXES = (".npz", ".npy", ".parquet", ".safetensors")
_SAVE = "np.savez('features.npz', features=..., labels=...)"
_PICKLES = f"holds pickles, which are not opened: load it where you trust it, and save its arrays with {_SAVE}"
OTHER_FORMATS = dict.fromkeys((".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"), _PICKLES) | {
    ".h5": f"is an HDF5 file: save its arrays, h5py.File(path)[name][:], with {_SAVE}",
    ".hdf5": f"is an HDF5 file: save its arrays, h5py.File(path)[name][:], with {_SAVE}",
    ".zarr": f"is a Zarr store: save its arrays, zarr.open(path)[name][:], with {_SAVE}",
}
IDS = "ids"
_DAMAGED = (ValueError, EOFError, OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
_MAX_DEFLATE = 1032  # bytes that one byte of deflate can stand for

Wanted = Callable[[str], bool]
Contents = tuple[dict[str, Any], dict[str, str]]  # the wanted arrays, and dtype and shape of everything in the file


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Arguments of `dnc.analyze`: labels are one array, or a dict for several labelings; ids are of the samples."""

    features: Any
    labels: Any
    class_names: Any = None
    ids: Any = None

    def with_tasks(self, tasks: Sequence[str]) -> "FeatureFile":
        """Only these labelings of several. Raises ValueError for one that is not there."""
        labels = self.labels if isinstance(self.labels, Mapping) else {}
        errors.check_known("tasks", tasks, labels)
        names = {task: names for task, names in (self.class_names or {}).items() if task in tasks}
        return dataclasses.replace(self, labels={task: labels[task] for task in tasks}, class_names=names or None)


def read_features(
    path: pathlib.Path,
    labels_path: pathlib.Path | None = None,
    features_key: str = "features",
    labels_key: str | None = None,
) -> FeatureFile:
    """Read a feature file; `labels_path` is the npy file of labels that goes with an npy file of features.

    A folder stands for the npz, Parquet or safetensors files in it, in the order of their names: shards of one set,
    with the same arrays, dimensions, types of labels and class names.

    `features_key` and `labels_key` name the arrays in files that call them otherwise; without `labels_key`, labels are
    `labels` or all `labels_NAME`.

    Raises FileNotFoundError, or ValueError naming the file: unknown format, damaged or pickled content, a header that
    claims more than the file holds, no features or labels in it, the same shard twice.
    """
    for file in (path, labels_path):
        if file is not None and not file.exists():
            raise FileNotFoundError(f"{file} does not exist or is not a file")
        if file is not None and file.suffix in OTHER_FORMATS:
            raise ValueError(f"{file} {OTHER_FORMATS[file.suffix]}")
    if path.is_dir() and labels_path is None:
        return _read_folder(path, features_key, labels_key)
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

    def wanted(key: str) -> bool:
        own = key == labels_key if labels_key else re.match(r"labels$|labels_|class_names_", key)
        return bool(own) or key in (features_key, "class_names", IDS)

    arrays, everything = readers[path.suffix](path, wanted)
    return _arguments(arrays, everything, path, features_key, labels_key)


def feature_sets(path: pathlib.Path) -> list[str]:
    """The arrays `features_NAME` of a file, or of a folder's first, in their order; none where it holds `features`.

    It never raises for a file that `read_features` refuses: that says why.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    if path.is_dir():
        path = next((file for file in sorted(path.iterdir()) if file.suffix in readers), path)
    try:
        names = readers[path.suffix](path, lambda key: False)[1] if path.suffix in readers else {}
    except (OSError, ValueError):
        return []
    return [] if "features" in names else [name for name in names if name.startswith(PREFIX)]


def _read_folder(folder: pathlib.Path, features_key: str, labels_key: str | None) -> FeatureFile:
    suffixes = (".npz", ".parquet", ".safetensors")
    shards = sorted(file for file in folder.iterdir() if file.suffix in suffixes and not file.name.startswith("."))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no npz, Parquet or safetensors files")
    sets = sorted({re.sub(r"-\d{5}-of-(\d{5})$", r"-*-of-\1", file.stem) + file.suffix for file in shards})
    if len({file.suffix for file in shards}) > 1 or (len(sets) > 1 and any("-*-of-" in name for name in sets)):
        raise ValueError(f"{folder} holds more than one set, {', '.join(sets[:5])}: name one file, or move others away")
    expected = re.search(r"-of-(\d{5})$", shards[0].stem)
    if expected and len(shards) != int(expected[1]):
        raise ValueError(f"{folder} holds {len(shards)} of {int(expected[1])} shards: embed the rest first")
    parts = [read_features(shard, None, features_key, labels_key) for shard in shards]
    first = parts[0]
    starts: dict[Any, pathlib.Path] = {}
    for shard, part in zip(shards, parts, strict=True):
        if _layout(part) != _layout(first):
            raise ValueError(
                f"{shard} holds other arrays than {shards[0]}: {_layout(part)} and {_layout(first)}; shards of one set "
                "have the same labelings, types of labels, dimension and class names"
            )
        earlier = starts.setdefault((len(part.features), part.features[:1].tobytes()), shard)
        if earlier != shard and _same(part, parts[shards.index(earlier)]):
            raise ValueError(f"{shard} holds the same as {earlier}: move one of them away")
    features = np.concatenate([part.features for part in parts])
    ids = None if any(part.ids is None for part in parts) else [name for part in parts for name in part.ids]
    if not isinstance(first.labels, Mapping):
        return FeatureFile(features, np.concatenate([part.labels for part in parts]), first.class_names, ids)
    labels = {task: np.concatenate([part.labels[task] for part in parts]) for task in first.labels}
    return FeatureFile(features, labels, first.class_names, ids)


def _layout(part: FeatureFile) -> tuple[Any, ...]:
    several = isinstance(part.labels, Mapping)
    kinds = {task: _kind(labels) for task, labels in (part.labels if several else {"labels": part.labels}).items()}
    return dict(sorted(kinds.items())), np.shape(part.features)[1:], part.class_names


def _kind(labels: np.ndarray) -> str:
    return {"i": "integers", "u": "unsigned integers", "f": "floats", "b": "booleans"}.get(labels.dtype.kind, "text")


def _same(part: FeatureFile, other: FeatureFile) -> bool:
    pairs = [(part.features, other.features)]
    pairs += [(part.labels[t], other.labels[t]) for t in part.labels] if isinstance(part.labels, Mapping) else []
    pairs += [] if isinstance(part.labels, Mapping) else [(part.labels, other.labels)]
    return all(np.array_equal(first, second) for first, second in pairs)


def _arguments(
    arrays: Mapping[str, Any],
    everything: Mapping[str, str],
    path: pathlib.Path,
    features_key: str,
    labels_key: str | None,
) -> FeatureFile:
    listed = ", ".join(f"{key} {what}" for key, what in sorted(everything.items())) or "nothing"
    several = [key for key in everything if key.startswith(PREFIX)]
    if features_key not in arrays and several:
        raise ValueError(
            f"{path} holds {len(several)} feature sets, no {features_key!r}: name one of {', '.join(several)} with "
            "--features_key=NAME"
        )
    if features_key not in arrays:
        raise ValueError(f"{path} holds no {features_key!r}: it has {listed}; name yours with --features_key=NAME")
    ids = None if IDS in (features_key, labels_key) else _ids(arrays, features_key)
    tasks = [] if labels_key else [key.removeprefix("labels_") for key in arrays if key.startswith("labels_")]
    if tasks and "labels" in arrays:
        raise ValueError(f"{path} holds both 'labels' and 'labels_{tasks[0]}': keep one, or give --labels_key=NAME")
    if tasks:
        labels = {task: arrays[f"labels_{task}"] for task in tasks}
        names = {task: arrays[f"class_names_{task}"] for task in tasks if f"class_names_{task}" in arrays}
        return FeatureFile(arrays[features_key], labels, {k: v.tolist() for k, v in names.items()} or None, ids)
    if (key := labels_key or "labels") not in arrays:
        others = "" if labels_key else " or 'labels_NAME'"
        raise ValueError(f"{path} holds no {key!r}{others}: it has {listed}; name yours with --labels_key=NAME")
    names = arrays.get("class_names")
    return FeatureFile(arrays[features_key], arrays[key], None if names is None else names.tolist(), ids)


def _ids(arrays: Mapping[str, Any], features_key: str) -> list[str] | None:
    """None where they are not one plain value a row: then they are something else."""
    ids = arrays.get(IDS)
    if ids is None or ids.ndim != 1 or ids.shape != np.shape(arrays[features_key])[:1]:
        return None
    return list(map(str, ids.tolist()))


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            _check_header(file, path.stat().st_size)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a readable npy file: {error}") from error


def _read_npz(path: pathlib.Path, wanted: Wanted) -> Contents:
    arrays, everything = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_once([name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")], wanted)
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                if key == member.filename:
                    everything[key] = "(not an array)"
                    continue
                with archive.open(member) as file:
                    if member.compress_type == zipfile.ZIP_DEFLATED:
                        _check_claim(member.file_size, _MAX_DEFLATE * member.compress_size)
                    everything[key] = _check_header(file, member.file_size, pickled=not wanted(key) or key == IDS)
                if wanted(key) and not everything[key].startswith("object"):
                    with archive.open(member) as file:
                        arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error
    return arrays, everything


def _check_header(file: IO[bytes] | zipfile.ZipExtFile, size: int, pickled: bool = False) -> str:
    """Dtype and shape in the header of an npy file of `size` bytes, which must be what they make."""
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        raise ValueError(f"version {version} of the npy format holds records, not an array")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject and not pickled:
        raise ValueError("pickled content is refused: save strings with .astype(str), numbers with their dtype")
    if not dtype.hasobject:
        _check_claim(math.prod(shape) * dtype.itemsize, size - file.tell())
    return f"{dtype} {list(shape)}"


def _check_once(names: Sequence[str], wanted: Wanted) -> None:
    for name, count in collections.Counter(names).items():
        if count > 1 and wanted(name):
            raise ValueError(f"it holds {name!r} {count} times: keep one of them")


def _check_claim(claimed: int, held: int) -> None:
    if claimed > held:
        raise ValueError(f"its header claims {claimed:,} bytes of data, of which the file can hold {held:,}")


def _read_safetensors(path: pathlib.Path, wanted: Wanted) -> Contents:
    import ml_dtypes  # noqa: F401, tells NumPy what bfloat16 is
    import safetensors

    arrays, everything = {}, {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for key in file.keys():  # noqa: SIM118, not a mapping
                tensor = file.get_slice(key)
                everything[key] = f"{tensor.get_dtype()} {tensor.get_shape()}"
                if wanted(key) and tensor.get_dtype().startswith(("F8_", "F6_", "F4")):
                    raise ValueError(f"{key!r} is of type {tensor.get_dtype()}: save it as float32, which is exact")
                if wanted(key):
                    arrays[key] = file.get_tensor(key)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    return arrays, everything


def _read_parquet(path: pathlib.Path, wanted: Wanted) -> Contents:
    with distribution.extra("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_once(file.schema_arrow.names, wanted)
            everything = {field.name: str(field.type) for field in file.schema_arrow}
            table = file.read(columns=[key for key in everything if wanted(key) and key != "class_names"])
            if table.num_rows != file.metadata.num_rows:
                raise pa.ArrowInvalid(f"it holds {table.num_rows} rows of {file.metadata.num_rows}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    columns = {key: table.column(key) for key in table.column_names}
    is_list = pa.types.is_nested
    if IDS in columns and (columns[IDS].null_count or is_list(columns[IDS].type)):
        del columns[IDS]  # not names of the samples
    for key, column in columns.items():
        if column.null_count:
            rows = np.flatnonzero(np.asarray(column.is_null()))
            raise ValueError(
                f"{path} column {key!r} has {column.null_count} missing values (first rows: "
                f"{', '.join(map(str, rows[:5]))}): drop these rows"
            )
    return {
        key: _matrix(column.combine_chunks(), f"{path} column {key!r}") if is_list(column.type) else _values(column)
        for key, column in columns.items()
    }, everything


def _values(column: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return np.asarray(column.to_pylist()) if text and not column.null_count else np.asarray(column)


def _matrix(column: Any, name: str) -> np.ndarray:
    """A column of equally long lists as a matrix."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        lengths = [column.type.list_size]
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = column.value_lengths().unique().to_pylist()
    else:
        raise ValueError(f"{name} must hold a list per row, got {column.type}")
    if len(lengths) != 1:
        raise ValueError(f"{name} must hold equally long lists, got lengths {lengths[:5]}")
    values = column.flatten()
    if values.null_count:
        rows = np.unique(np.flatnonzero(np.asarray(values.is_null())) // lengths[0])
        raise ValueError(f"{name} has {values.null_count} missing values (first rows: {', '.join(map(str, rows[:5]))})")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), lengths[0])
