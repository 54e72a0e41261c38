"""Image files in a folder: one folder per class, a table of labels, or no labels at all.

    FolderImages("photos")                                   # photos/cat/..., photos/dog/...: the task "class"
    FolderImages("photos", table="labels.csv")               # a column of paths, every other column is a task
    FolderImages("photos", tasks=())                         # any folder, without labels
    FolderImages("photos", table="pairs.parquet", captions="text", tasks=())     # images and their captions

**mini-ImageNet** (100 classes of 600 images, 84 x 84) comes in two layouts, and both are read: 100 class folders, and
one folder of images beside the tables of Ravi and Larochelle (ICLR 2017), `train.csv`, `val.csv` and `test.csv` with
the columns `filename,label`. Those split the *classes*, 64 / 16 / 20, for few-shot learning of new classes:

    FolderImages("mini/images", table="mini/train.csv", tasks=())     # pretraining uses no labels
    FolderImages("mini/images", table="mini/test.csv")                # 20 classes it has never seen

For a split within all 100 classes, give the three tables together and hold some images of each class out
(`subset.split`; in a config, `test_per_class`).
"""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from dnc.data.sources.base import ImageSource, fingerprint_of_files
from dnc.data.sources.decode import SUFFIXES, decode
from dnc.data.sources.table import read_table
from dnc.types import UInt8

Path = str | os.PathLike[str]
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}  # names of folders


class FolderImages(ImageSource):
    """The image files below `root`, in the order of their names or of the table's rows; read when asked for.

    Without a table, the first folder below `root` names an image's class, in a task called "class"; a folder whose
    images all lie in `root` itself has no labels. Hidden files and folders are left out, and so are files without an
    image suffix, and links that lead back to a folder above them. `shape` is None: only decoding would tell.

    table: CSV or Parquet file, or several to be read one after the other: a column of paths relative to `root`, and
      columns of labels (text or integers).
    path_column: the column of paths; "path", "filename", "file_name", "file" or "image" are recognized.
    tasks: the labelings to use, all by default; () for none.
    captions: the table's column of captions, which is then not a labeling; every image must have a caption.
    class_names: those of the training split, for a test split: labels are numbered alike, other classes are an error.

    Classes are numbered in the order of their names, or of their values when all are integers.

    Raises FileNotFoundError; ValueError for a folder without images, with images both in it and in folders, with an
    empty class, with splits instead of classes, or with an image that is not a file; for a table, see `read_table`.
    """

    def __init__(
        self,
        root: Path,
        table: Path | Sequence[Path] | None = None,
        *,
        path_column: str | None = None,
        tasks: Sequence[str] | None = None,
        captions: str | None = None,
        class_names: Mapping[str, Sequence[str]] | None = None,
    ):
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{os.fspath(root)!r} is not a folder: give the folder of the images")
        if table is None:
            if captions is not None:
                raise ValueError(f"captions={captions!r} is a column of a table: give the table of the images too")
            self._paths = list_images(self.root)
            columns = {} if tasks == () or tasks == [] else _class_folders(self.root, self._paths, tasks)
        else:
            tables = [table] if isinstance(table, str | os.PathLike) else table
            files = [pathlib.Path(file) for file in tables]
            self._paths, columns, self.captions = read_table(files, self.root, path_column, tasks, captions)
        self.labels: dict[str, np.ndarray] = {}
        self.class_names: dict[str, list[str]] = {}
        for task, values in columns.items():
            known = None if class_names is None else class_names.get(task)
            self.class_names[task] = _classes(task, values) if known is None else list(known)
            self.labels[task] = _numbers(task, values, self.class_names[task])

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(decode(self.root / self._paths[index], self.name(index))[0])

    def picture(self, index: int, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
        return decode(self.root / self._paths[index], self.name(index), at_least)

    def fingerprint(self) -> str:
        return fingerprint_of_files(self.root / path for path in self._paths)

    def name(self, index: int) -> str:
        """The file's path below `root`."""
        return self._paths[index]


def list_images(root: pathlib.Path) -> list[str]:
    """Paths below `root` of all files with an image suffix, sorted."""
    paths = sorted(_walk(os.fspath(root), "", ()))
    if not paths:
        raise ValueError(f"{root} holds no images: looked for {', '.join(sorted(SUFFIXES))}, in all folders")
    return paths


def _walk(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that this one is in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, real))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                if not entry.is_file():
                    raise ValueError(f"{entry.path} is not a file, but a pipe, a device or a broken link: remove it")
                yield prefix + entry.name


def _class_folders(root: pathlib.Path, paths: Sequence[str], tasks: Sequence[str] | None) -> dict[str, list[str]]:
    """The task "class": the first folder of each path; empty when no path has one."""
    if tasks is not None and list(tasks) != ["class"]:
        raise ValueError(f"tasks={list(tasks)}: folders of images have only the task 'class'; give a table for others")
    loose = [path for path in paths if "/" not in path]
    if len(loose) == len(paths):
        return {}
    if loose:
        raise ValueError(
            f"{root} holds {len(loose)} images, the first is {loose[0]}, beside {len(paths) - len(loose)} in "
            "folders: move them into class folders, or give tasks=() (--nolabels) to use all without labels"
        )
    classes = [path.split("/", 1)[0] for path in paths]
    folders = {x.name for x in root.iterdir() if x.is_dir() and not x.name.startswith(".")}
    if empty := sorted(folders - set(classes)):
        raise ValueError(f"{root} has class folders without images: {', '.join(empty[:5])}; remove them")
    if len(splits := sorted(name for name in set(classes) if name.lower() in SPLITS)) > 1:
        raise ValueError(
            f"{root} holds the splits {', '.join(splits)}, not classes: give one of them, such as {root / splits[0]}, "
            "or tasks=() (--nolabels), to use all images without labels"
        )
    if len(set(classes)) == 1:
        raise ValueError(
            f"{root} has only the class folder {classes[0]!r}, but collapse is measured between two or more: give "
            f"{root / classes[0]}, or tasks=() (--nolabels), to use the images without labels"
        )
    return {"class": classes}


def _classes(task: str, values: Sequence[str]) -> list[str]:
    """The values by name, or by number when all are integers."""
    names = set(values)
    if len(names) < 2:
        raise ValueError(
            f"task {task!r} has only the class {names.pop()!r}, but collapse is measured between two or more: name the "
            "labelings to use in tasks (--tasks)"
        )
    are_integers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if are_integers else sorted(names)


def _numbers(task: str, values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number = {name: index for index, name in enumerate(names)}
    if unknown := sorted(set(values) - number.keys()):
        raise ValueError(
            f"task {task!r} has {len(unknown)} classes that the training images lack, such as {unknown[0]!r}: remove "
            "them from the test images, or train without labels (train_tasks=())"
        )
    return np.array([number[value] for value in values], np.int32)
