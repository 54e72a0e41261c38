"""Files that are there whole or not at all, also after a power cut, and folders that one process holds."""

import errno
import fcntl
import glob
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from etils import epath

from dnc import errors

CANNOT_WRITE = 74  # exit code (EX_IOERR): the disk is full or gone
LOCK = ".lock"  # the file of `locked`

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PHRASES = ("No space left", "File too large", "quota exceeded", "Read-only file system")


@contextmanager
def locked(folder: epath.PathLike) -> Iterator[None]:
    """Holds a folder for this process; the hold ends with the process, however that ends.

    Raises BlockingIOError when another process holds it.
    """
    with (epath.Path(folder) / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{os.fspath(folder)!r} is in use by another process: wait for it") from error
        yield


@contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
    """A name beside `path` to write to; when the block ends, that file takes the place of `path`.

    A reader finds the old file or the new one, never a part. File and folder are flushed to the disk first; a bucket,
    whose objects appear whole, is not. After an exception the old file is as it was, and the new one gone.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield scratch
        flush(scratch)
        scratch.replace(path)
        flush(path.parent)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Write a file, atomically and durably."""
    with replacing(path) as scratch, scratch.open("wb") as file:
        file.write(content)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write UTF-8 text, atomically and durably."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any, *, indent: int | None = 1) -> None:
    """Write JSON and a newline, atomically and durably. Raises ValueError for nan and inf, which JSON does not have."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Raises ValueError naming the file where it is not JSON."""
    try:
        return json.loads(epath.Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} is not valid JSON ({error})") from error


def write_npz(path: epath.PathLike, arrays: Mapping[str, Any]) -> None:
    """Write arrays as an uncompressed .npz file, atomically and durably."""
    with replacing(path) as scratch, scratch.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def flush(path: epath.Path) -> None:
    """Force a folder's entries, or a file's content, to the disk; nothing to do in a bucket."""
    if "://" in os.fspath(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(path: epath.PathLike) -> None:
    """Remove what writers of `path` that were killed have left beside it."""
    path = epath.Path(path)
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if scratch.suffix[1:].isdecimal() and scratch.is_file():
            scratch.unlink(missing_ok=True)


def is_disk_error(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means that files can no longer be written."""
    return any(
        (isinstance(link, OSError) and link.errno in _ERRNOS) or any(phrase in str(link) for phrase in _PHRASES)
        for link in errors.chain(error)
    )
