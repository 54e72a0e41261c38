"""Tables of image files, their labels and captions, CSV or Parquet, checked before anything is decoded."""

import csv
import io
import os
import pathlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from dnc import distribution, errors

PATH_COLUMNS = ("path", "filename", "file_name", "file", "image")

_DELIMITERS = ",;\t|"
_INTEGER = re.compile(r"-?\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Columns = dict[str, list[str]]  # all values as text; "" where there is none


def read_table(
    tables: Sequence[pathlib.Path],
    root: pathlib.Path,
    path_column: str | None,
    tasks: Sequence[str] | None,
    captions: str | None = None,
) -> tuple[list[str], Columns, list[str] | None]:
    """The paths, for each task the class of each image, as text ("7" and "07" are different classes), and the captions.

    CSV may be separated by commas or, where the header has none, by semicolons, tabs or bars. Space around names and
    values does not count. A column without a name that holds distinct integers, as pandas writes its index, or nothing,
    is not a labeling; neither are lists and bytes.

    Raises FileNotFoundError for a table that does not exist, and ValueError, which names the table, the column and the
    first row, for an unknown column, two columns of one name, a missing label or caption, a labeling of fractions, and
    a file that is listed twice or missing.
    """
    name = ", ".join(map(str, tables))
    columns = _joined([_read(path) for path in tables], name)
    path_column = _path_column(name, columns, path_column)
    paths = columns.pop(path_column)
    if not paths:
        raise ValueError(f"table {name} has no rows")
    texts: list[str] | None = None
    if captions is not None:
        texts = [text.strip() for text in columns.pop(_require(name, captions, columns, "captions"))]
    chosen = {task: columns[_require(name, task, columns, "tasks")] for task in (columns if tasks is None else tasks)}
    read = {path_column: paths, **chosen} | ({} if texts is None else {captions: texts})
    for column, values in read.items():
        if missing := values.count(""):
            raise ValueError(
                f"table {name}: {missing} rows have no value in column {column!r}, the first is row "
                f"{values.index('') + 1}: fill them in, remove them, or name the labelings to use in tasks (--tasks)"
            )
    for task, values in chosen.items():
        if all(map(_NUMBER.fullmatch, values)) and not all(map(_INTEGER.fullmatch, values)):
            raise ValueError(
                f"table {name}: column {task!r} holds fractions, such as {values[0]}, but labels are text or integers: "
                "name the labelings to use in tasks (--tasks)"
            )
    _check_paths(name, paths, root)
    return paths, chosen, texts


def _read(path: pathlib.Path) -> Columns:
    if not path.exists():
        raise FileNotFoundError(f"table {path} does not exist")
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (csv.Error, OSError, ValueError) as error:
        raise ValueError(f"table {path} is not readable as {path.suffix or 'CSV'}: {error}") from error


def _read_csv(path: pathlib.Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as file:
        text = file.read()
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in _DELIMITERS if mark in first), ",")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    if not rows:
        raise ValueError("it is empty")
    header, *rows = rows
    ragged = [number for number, row in enumerate(rows, start=1) if row and len(row) != len(header)]
    if ragged:
        raise ValueError(f"row {ragged[0]} does not have the {len(header)} fields of the header")
    return _columns(header, [[row[place].strip() for row in rows if row] for place in range(len(header))])


def _read_parquet(path: pathlib.Path) -> Columns:
    with distribution.extra("parquet"):
        import pyarrow
        import pyarrow.parquet
        from pyarrow import types

    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    of_values = [not (types.is_nested(x) or types.is_binary(x) or types.is_large_binary(x)) for x in table.schema.types]
    places = [place for place, wanted in enumerate(of_values) if wanted]
    values = [[_text(value) for value in table.column(place).to_pylist()] for place in places]
    return _columns([table.column_names[place] for place in places], values)


def _text(value: object) -> str:
    missing = value is None or value != value  # nan
    return "" if missing else str(value).strip()


def _columns(header: Sequence[str], values: Sequence[list[str]]) -> Columns:
    """The columns by name, without those of no name that only count the rows, or are empty."""
    names = ["" if name == "__index_level_0__" else name.strip() for name in header]  # pandas' name in Parquet
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise ValueError(f"two columns are called {twice[0]!r}: rename one")
    for place, (name, column) in enumerate(zip(names, values, strict=True), start=1):
        counts = len(set(column)) == len(column) and all(map(_INTEGER.fullmatch, column))
        if not name and any(column) and not counts:
            raise ValueError(f"column {place} has no name: give it one, or remove it")
    return {name: column for name, column in zip(names, values, strict=True) if name}


def _joined(parts: Sequence[Columns], name: str) -> Columns:
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(f"the tables {name} have different columns: {'; '.join(', '.join(part) for part in parts)}")
    return {column: [value for part in parts for value in part[column]] for column in parts[0]}


def _path_column(name: str, columns: Mapping[str, list[str]], path_column: str | None) -> str:
    if path_column is not None:
        return _require(name, path_column, columns, "path_column")
    candidates = [column for column in columns if column.lower() in PATH_COLUMNS]
    if len(candidates) != 1:
        which = f"several that may hold the paths ({', '.join(candidates)})" if candidates else "none named like a path"
        raise ValueError(
            f"table {name} has the columns {', '.join(columns)}, {which}: call that one "
            f"{' or '.join(PATH_COLUMNS[:2])}, and no other (a config may name it in path_column instead)"
        )
    return candidates[0]


def _require(name: str, column: str, columns: Mapping[str, list[str]], argument: str) -> str:
    if column not in columns:
        raise errors.unknown(f"table {name}: the column {argument}", column, columns)
    return column


def _check_paths(name: str, paths: Sequence[str], root: pathlib.Path) -> None:
    files = [os.path.normpath(root / path) for path in paths]
    if twice := [file for file, count in Counter(files).items() if count > 1]:
        row = files.index(twice[0])
        raise ValueError(
            f"table {name} lists {len(twice)} files more than once, the first is {paths[row]!r} in row {row + 1}: "
            "keep one row per file, with one column per labeling"
        )
    if absent := [path for path in paths if not (root / path).is_file()]:
        raise ValueError(
            f"table {name}: {len(absent)} of {len(paths)} files are not below {root}, the first is {absent[0]!r}: "
            "give the folder that the paths start from"
        )
