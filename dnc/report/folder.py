"""The folder of a report: checked before any work, and owned file by file.

A report owns the files that it wrote, which `.dnc-report.json` lists: it replaces and removes those alone, wherever
the folder is and whether it is a link. Whatever else the folder holds stays as it is.
"""

import glob
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from dnc import files

MARK = '<meta name="generator" content="dnc report">'
_LIST = ".dnc-report.json"
_NAME = re.compile(r"(figures/)?\w[\w.-]*")  # what a list may hold: no path out of the folder
_KNOWN = re.compile(  # files of a report without a list
    r"index\.html|(numbers|analysis|comparison|plan)\.json|numbers\.csv|"
    r"figures/(baguette|collapse|cosines|errors|interference|loss|pairs|plan|scatter|shots|variance|views)"
    r"(_\w+)?\.(svg|png)"
)


def check(output: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise where a report cannot be written, before the work that it takes to make one.

    Raises:
        FileExistsError: `output` is a file, a link to nothing, or holds files but no report.
        ValueError: it holds one of `inputs`.
        OSError: nothing can be written there.
    """
    _owned(output)
    for path in inputs:
        if output.resolve() in (path.resolve(), *path.resolve().parents):
            raise ValueError(f"output={str(output)!r} holds the input {str(path)!r}: name another directory")
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OSError(
            f"output={str(output)!r} cannot be written ({error.strerror}): name a directory that can"
        ) from error


def write(output: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write files of a report, in this order; each appears whole. Names are relative, as in "figures/loss.svg".

    Raises FileExistsError before anything is written where a name is that of a file which no report wrote.
    """
    owned = _owned(output)
    if taken := [name for name in contents if name not in owned and (output / name).exists()]:
        raise FileExistsError(f"output={str(output)!r} holds {taken[0]!r}, which no report wrote: move it away")
    _sweep(output, owned)
    files.write_json(output / _LIST, sorted({*owned, *contents}))  # first, so that nothing is written unlisted
    for name, content in contents.items():
        with files.replacing(output / name) as scratch:
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def keep_only(output: Path, names: Collection[str]) -> None:
    """Remove the report's other files: of an older report."""
    for name in _owned(output) - {*names}:
        (output / name).unlink(missing_ok=True)
    files.write_json(output / _LIST, sorted(names))


def _owned(output: Path) -> set[str]:
    """Names of the files that reports wrote to `output`. Raises FileExistsError where it holds others alone."""
    if output.is_symlink() and not output.exists():
        raise FileExistsError(f"output={str(output)!r} is a link to {str(output.readlink())!r}, which does not exist")
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output={str(output)!r} is a file: name a directory")
    with suppress(ValueError, FileNotFoundError, NotADirectoryError):  # a damaged list is none
        if isinstance(names := files.read_json(output / _LIST), list):
            return {name for name in names if isinstance(name, str) and _NAME.fullmatch(name)}
    page = output / "index.html"
    if page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")[:2000]:
        entries = {path.relative_to(output).as_posix() for path in (*output.iterdir(), *output.glob("figures/*"))}
        return {name for name in entries if _KNOWN.fullmatch(name)}
    if output.exists() and any(entry.name != _LIST for entry in output.iterdir()):
        raise FileExistsError(f"output={str(output)!r} holds other files: name a new or empty directory")
    return set()


def _sweep(output: Path, owned: Iterable[str]) -> None:
    """Remove what killed reports left: unfinished files here, and folders beside `output` with an unfinished report."""
    for name in (_LIST, *owned):
        files.sweep(output / name)
    for scratch in output.resolve().parent.glob(f".{glob.escape(output.resolve().name)}.*"):
        if scratch.is_dir() and [entry.name for entry in scratch.iterdir()] == ["new"]:
            shutil.rmtree(scratch, ignore_errors=True)
