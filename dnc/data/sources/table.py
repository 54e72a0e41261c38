"""Tables of image files, their labels and captions, CSV or Parquet, checked before anything is decoded."""

import csv
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow
import pyarrow.parquet

from dnc import errors

PATH_COLUMNS = ("path", "filename", "file_name", "file", "image")

Columns = dict[str, list[str]]  # all values as text; "" where there is none


def read_table(
    tables: Sequence[pathlib.Path],
    root: pathlib.Path,
    path_column: str | None,
    tasks: Sequence[str] | None,
    captions: str | None = None,
) -> tuple[list[str], Columns, list[str] | None]:
    """The paths, for each task the class of each image, as text ("7" and "07" are different classes), and the captions.

    Raises FileNotFoundError for a table that does not exist, and ValueError, which names the table, the column and the
    first row, for an unknown column, a missing label or caption, a column of fractions, and a file that is listed
    twice or missing.
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
                f"{values.index('') + 1}: fill them in, remove them, or name the columns to use in tasks"
            )
    _check_paths(name, paths, root)
    return paths, chosen, texts


def _read(path: pathlib.Path) -> Columns:
    if not path.exists():
        raise FileNotFoundError(f"table {path} does not exist")
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except (csv.Error, pyarrow.ArrowException, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"table {path} is not readable as {path.suffix or 'CSV'}: {error}") from error


def _read_csv(path: pathlib.Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file, strict=True)
    ragged = [number for number, row in enumerate(rows, start=1) if row and len(row) != len(header)]
    if ragged:
        raise ValueError(f"row {ragged[0]} does not have the {len(header)} fields of the header")
    return {column: [row[place].strip() for row in rows if row] for place, column in enumerate(header)}


def _read_parquet(path: pathlib.Path) -> Columns:
    table = pyarrow.parquet.read_table(path)
    for field in table.schema:
        if pyarrow.types.is_floating(field.type):
            raise ValueError(f"column {field.name!r} holds fractions: labels must be text or integers")
    return {
        name: ["" if value is None else str(value) for value in table[name].to_pylist()] for name in table.column_names
    }


def _joined(parts: Sequence[Columns], name: str) -> Columns:
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(f"the tables {name} have different columns: {'; '.join(', '.join(part) for part in parts)}")
    return {column: [value for part in parts for value in part[column]] for column in parts[0]}


def _path_column(name: str, columns: Mapping[str, list[str]], path_column: str | None) -> str:
    if path_column is not None:
        return _require(name, path_column, columns, "path_column")
    candidates = [column for column in PATH_COLUMNS if column in columns]
    if len(candidates) != 1:
        which = f"several that may hold the paths ({', '.join(candidates)})" if candidates else "none named like a path"
        raise ValueError(
            f"table {name} has the columns {', '.join(columns)}, {which}: call it "
            f"{' or '.join(PATH_COLUMNS[:2])}, or name it in path_column"
        )
    return candidates[0]


def _require(name: str, column: str, columns: Mapping[str, list[str]], argument: str) -> str:
    if column not in columns:
        raise errors.unknown(f"table {name}: the column {argument}", column, columns)
    return column


def _check_paths(name: str, paths: Sequence[str], root: pathlib.Path) -> None:
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(
            f"table {name} lists {len(twice)} files more than once, the first is {twice[0]!r} in row "
            f"{paths.index(twice[0]) + 1}: keep one row per file, with one column per labeling"
        )
    if absent := [path for path in paths if not (root / path).is_file()]:
        raise ValueError(
            f"table {name}: {len(absent)} of {len(paths)} files are not below root={root}, the first is {absent[0]!r}: "
            "give the folder that the paths start from"
        )
