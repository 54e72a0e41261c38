"""The files of an embedding: shards in a folder, or one file made of them, of one thing, by one writer at a time."""

import hashlib
import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from dnc import distributed, files
from dnc.data.sources.base import ImageSource
from dnc.features import sets

RECORD = "embedding"  # what the features are of: an array of one file, a JSON file beside shards
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


def digest(parts: Iterable[bytes]) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@contextmanager
def claimed(output: pathlib.Path, record: Mapping[str, Any], names: Sequence[str]) -> Iterator[pathlib.Path]:
    """The folder of an output's shards, which this process alone writes to, with the record of what they are of.

    It is the output itself or, for an .npz file, lies beside it until that is whole. `names` are the shards'. Without
    one of them the record goes again, and the folder where it is then empty.

    Raises ValueError where the output holds anything else than features of the same images by the same encoder, and
    BlockingIOError where another process writes to it.
    """
    folder = output.with_name(output.name + ".parts") if output.suffix == ".npz" else output
    refusal = None
    with ExitStack() as held:
        if distributed.is_lead():
            try:
                _refuse_other(output, folder, record)
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(files.locked(folder))
                held.callback(_remove_unless_used, folder, names)
                for scratch in folder.glob(".*.npz.*"):  # of a process that was killed
                    if scratch.stem[1:] in names and scratch.suffix[1:].isdecimal():
                        scratch.unlink()
                if not _record_file(folder).exists():
                    files.write_json(_record_file(folder), record)
            except (OSError, ValueError) as error:
                refusal = error
        if not distributed.any_process(refusal is not None) and not distributed.is_lead():
            try:  # dates may differ between machines
                _refuse_other(folder, folder, {key: value for key, value in record.items() if key != "image_files"})
            except (OSError, ValueError) as error:
                refusal = error
        if distributed.any_process(refusal is not None):
            raise refusal or ValueError(f"output={output} was refused to another process; see its log")
        yield folder


def stored_shape(
    file: pathlib.Path, rows: np.ndarray, source: ImageSource, widths: Mapping[str, int]
) -> tuple[int, ...] | None:
    """The shape of the features that a file holds of the source's rows; None where it is missing or damaged.

    widths: of feature sets by name, whose widths add up; empty for one set.

    Labels that differ from the source's, which may have been corrected since, are replaced. Arrays of other names that
    were added to a finished output stay. All processes call it.
    """
    shape = _lead_stored_shape(file, rows, source, widths) if distributed.is_lead() else None
    if distributed.any_process(distributed.is_lead() and shape is None):
        return None
    if shape is None:
        with np.load(file, allow_pickle=False) as arrays:
            shape = sets.shape({name: arrays[name].shape for name in sets.keys(widths)})
    return shape


def _lead_stored_shape(
    file: pathlib.Path, rows: np.ndarray, source: ImageSource, widths: Mapping[str, int]
) -> tuple[int, ...] | None:
    if not file.exists():
        return None
    try:
        arrays = _arrays(file)
        names = np.array([source.name(int(row)) for row in rows], str)
        features = {key: arrays[key] for key in sets.keys(widths)}
        wanted = features | described(rows[np.isin(names, arrays["ids"])], source)
        if not np.array_equal(wanted["ids"], arrays["ids"]):
            raise ValueError("it holds features of other images")
    except _DAMAGED as error:
        print(f"{file} is damaged ({error}): its images are embedded again", file=sys.stderr)
        return None
    finished = RECORD in arrays or "broken" in files.read_json(_record_file(file.parent))
    kept = {key: arrays[key] for key in arrays if key not in wanted and finished}
    if arrays.keys() != (wanted | kept).keys() or not all(np.array_equal(arrays[key], wanted[key]) for key in wanted):
        files.write_npz(file, wanted | kept)
        print(f"{file}: the labels are replaced by those that the images have now", file=sys.stderr)
    return sets.shape({name: x.shape for name, x in features.items()})


def contents(
    features: np.ndarray, rows: np.ndarray, source: ImageSource, widths: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The arrays of a shard: features, or all sets of them, ids, and for each labeling labels and class names."""
    return sets.apart(features, widths) | described(rows, source)


def described(rows: np.ndarray, source: ImageSource) -> dict[str, np.ndarray]:
    """What a shard holds beside features."""
    arrays = {"ids": np.array([source.name(int(row)) for row in rows], str)}
    for task, names in source.class_names.items():
        arrays |= {
            f"labels_{task}": np.asarray(source.labels[task])[rows],
            f"class_names_{task}": np.array(list(names)),
        }
    return arrays


def finish(output: pathlib.Path, shards: Sequence[pathlib.Path], record: Mapping[str, Any]) -> None:
    """The final record and, where the output is a file, one of all shards, which then go; by the lead."""
    if not distributed.is_lead():
        return
    if output.suffix != ".npz":
        files.write_json(_record_file(output), record)
        return
    parts = [_arrays(shard) for shard in shards]
    same = {key: value for key, value in parts[0].items() if key.startswith("class_names_")}
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key not in same}
    files.write_npz(output, joined | same | {RECORD: np.array(json.dumps(record))})
    discard(shards)


def discard(shards: Iterable[pathlib.Path]) -> None:
    """Removes these shards of a claimed folder, where they exist, by the lead."""
    if distributed.is_lead():
        for shard in shards:
            shard.unlink(missing_ok=True)


def _arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:  # np.load leaves a bad file open
        return {key: archive[key] for key in archive.files}


def _record_file(folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{RECORD}.json"


def _refuse_other(output: pathlib.Path, folder: pathlib.Path, record: Mapping[str, Any]) -> None:
    if output != folder and output.exists():
        _refuse_differing(output, _record_in(output) | {"shard_size": record["shard_size"]}, record)
    theirs = files.read_json(_record_file(folder)) if _record_file(folder).exists() else None
    if isinstance(theirs, dict):
        _refuse_differing(folder, theirs, record)
    elif folder.exists() and any(entry.name != files.LOCK for entry in folder.iterdir()):
        advice = "choose a new or empty folder, or a name ending in .npz" if output == folder else "move them away"
        raise ValueError(f"output={folder} holds other files: {advice}")


def _refuse_differing(output: pathlib.Path, theirs: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    if differing := [key for key, value in record.items() if theirs.get(key) != value]:
        said = {key: f"{key} was {theirs.get(key)} and is now {record[key]}" for key in differing}
        if "image_files" in said:
            said["image_files"] = "the images have other sizes, dates or content"
        changes = "; ".join(said.values())
        raise ValueError(f"output={output} holds other features: {changes}. Choose a new --output, or remove this one.")


def _record_in(file: pathlib.Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return dict(json.loads(str(arrays[RECORD])))
    except _DAMAGED as error:
        raise ValueError(
            f"output={file} exists, and is not a file that dnc embed wrote: choose a new --output, or remove it"
        ) from error


def _remove_unless_used(folder: pathlib.Path, names: Sequence[str]) -> None:
    if not any((folder / name).exists() for name in names):
        for name in (_record_file(folder).name, files.LOCK):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            folder.rmdir()
