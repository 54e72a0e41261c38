import os
import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from dnc.data.sources.base import ImageSource
from dnc.data.sources.folder import FolderImages
from dnc.data.sources.subset import Subset, split


def write(path: pathlib.Path, level: int, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Two classes; one nested, one with capitals; and what is to be left out."""
    for level, path in enumerate(["cat/b.png", "cat/young/a.PNG", "dog/c.png", "cat/a.jpg", "dog/d.gif"]):
        write(tmp_path / path, level)
    write(tmp_path / ".hidden/e.png", 9)
    write(tmp_path / "cat/.f.png", 9)
    (tmp_path / "cat/notes.txt").write_text("not an image")
    (tmp_path / "README.md").write_text("not an image")
    return tmp_path


def test_a_folder_a_class_in_sorted_order(folder):
    images = FolderImages(folder)
    assert isinstance(images, ImageSource)
    assert [images.name(i) for i in range(len(images))] == [
        "cat/a.jpg",
        "cat/b.png",
        "cat/young/a.PNG",
        "dog/c.png",
        "dog/d.gif",
    ]
    assert images.class_names == {"class": ["cat", "dog"]}
    np.testing.assert_array_equal(images.labels["class"], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(images.image(3), np.full((4, 6, 3), 2, np.uint8))
    picture, size = images.picture(3, at_least=2)
    assert (picture.size, size) == ((6, 4), (4, 6))


def test_a_flat_folder_has_no_labels(tmp_path):
    write(tmp_path / "a.png", 0)
    images = FolderImages(str(tmp_path))
    assert (len(images), images.labels, images.class_names) == (1, {}, {})


def test_labels_can_be_left_out(folder):
    write(folder / "loose.png", 0)
    assert len(FolderImages(folder, tasks=())) == 6
    assert FolderImages(folder, tasks=()).labels == {}


def test_links_to_folders_above_are_left_out_and_others_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "x.png", 0)
    (folder / "cat/loop").symlink_to(folder)
    (folder / "cat/self").symlink_to(folder / "cat")
    (folder / "eel").symlink_to(elsewhere)
    images = FolderImages(folder)
    assert [images.name(i) for i in range(len(images))][3:] == ["dog/c.png", "dog/d.gif", "eel/x.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: write(root / "loose.png", 0), "holds 1 images, the first is loose.png, beside 5 in folders"),
        (lambda root: (root / "empty").mkdir(), "class folders without images: empty"),
        (lambda root: [os.remove(root / x) for x in ("dog/c.png", "dog/d.gif")], "class folders without images: dog"),
        (lambda root: os.mkfifo(root / "cat/pipe.png"), r"cat/pipe\.png is not a file, but a pipe"),
        (lambda root: (root / "dog/gone.png").symlink_to("nowhere"), r"dog/gone\.png is not a file, .* broken link"),
        (
            lambda root: [(root / x).rename(root / y) for x, y in (("cat", "Train"), ("dog", "val"))],
            "splits Train, val",
        ),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message):
        FolderImages(folder)


def test_one_class_alone_is_refused_with_the_way_out(tmp_path):
    write(tmp_path / "images/a.png", 0)
    with pytest.raises(ValueError, match=r"only the class folder 'images'.*give .*images, or tasks"):
        FolderImages(tmp_path)
    with pytest.raises(ValueError, match="holds no images"):
        FolderImages(tmp_path.parent.joinpath("none").mkdir() or tmp_path.parent / "none")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        FolderImages(tmp_path / "missing")


def test_a_class_that_training_lacks_is_refused(folder, tmp_path_factory):
    test = tmp_path_factory.mktemp("test")
    for name in ("dog", "emu"):
        write(test / name / "a.png", 0)
    with pytest.raises(ValueError, match="1 classes that the training images lack, such as 'emu'"):
        FolderImages(test, class_names=FolderImages(folder).class_names)
    (test / "emu").rename(test / "cat")
    images = FolderImages(test, class_names={"class": ["dog", "cat"]})
    np.testing.assert_array_equal(images.labels["class"], [1, 0])


ROWS = [("a.png", "red", "10", "NA"), ("sub/b.png", "blue", "9", "x"), ("c.png", "red", "10", "x")]


def write_table(path: pathlib.Path, columns: dict[str, list]) -> pathlib.Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
        path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    for level, (name, *_) in enumerate(ROWS):
        write(tmp_path / name, level)
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_gives_several_labelings(pictures, suffix):
    paths, colors, numbers, letters = (list(column) for column in zip(*ROWS, strict=True))
    columns = {"path": paths, "color": colors, "number": [int(x) for x in numbers], "letter": letters}
    images = FolderImages(pictures, table=write_table(pictures / f"table.{suffix}", columns))
    assert images.class_names == {"color": ["blue", "red"], "number": ["9", "10"], "letter": ["NA", "x"]}
    np.testing.assert_array_equal(images.labels["color"], [1, 0, 1])
    np.testing.assert_array_equal(images.labels["number"], [1, 0, 1])
    np.testing.assert_array_equal(images.labels["letter"], [0, 1, 1])
    np.testing.assert_array_equal(images.image(1), np.full((4, 6, 3), 1, np.uint8))
    chosen = FolderImages(pictures, table=pictures / f"table.{suffix}", tasks=["color"], path_column="path")
    assert list(chosen.labels) == ["color"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"path": ["a.png", "a.png", "c.png"]}, {}, "lists 1 files more than once, the first is 'a.png' in row 1"),
        ({"path": ["a.png", "b.png", "c.png"]}, {}, r"1 of 3 files are not below /.*, the first is 'b\.png'"),
        ({"path": ["a.png", None, "c.png"]}, {}, "1 rows have no value in column 'path', the first is row 2"),
        ({"color": ["red", "blue", None]}, {}, "1 rows have no value in column 'color', the first is row 3"),
        ({"path": ["a.png", "./a.png", "c.png"]}, {}, r"lists 1 files more than once, the first is 'a\.png' in row 1"),
        ({"path": ["sub/../a.png", "a.png", "c.png"]}, {}, r"more than once, the first is 'sub/\.\./a\.png' in row 1"),
        ({"color": ["red", "red", "red"]}, {}, r"only the class 'red'.*\(--tasks\)"),
        ({" color": ["a", "b", "c"]}, {}, "two columns are called 'color': rename one"),
        ({"": ["a", "b", "c"]}, {}, "column 3 has no name"),
        ({"age": [0.5, 1.0, 2.0]}, {}, r"column 'age' holds fractions, such as 0\.5.*\(--tasks\)"),
        ({"file": ["a", "b", "c"]}, {}, r"several that may hold the paths \(path, file\)"),
        ({}, {"path_column": "pth"}, r"table\.\w+: the column path_column='pth' is not known: did you mean 'path'"),
        ({}, {"tasks": ["colr"]}, r"the column tasks='colr' is not known: did you mean 'color'"),
        ({"text": ["a", None, "c"]}, {"captions": "text"}, "1 rows have no value in column 'text', the first is row 2"),
        ({"text": ["a", "b", "  "]}, {"captions": "text"}, "1 rows have no value in column 'text', the first is row 3"),
        ({"text": ["a", "b", "c"]}, {"captions": "txt"}, "the column captions='txt' is not known: did you mean 'text'"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_that_does_not_fit_is_refused_with_the_row(pictures, suffix, change, options, message):
    columns = {"path": [row[0] for row in ROWS], "color": [row[1] for row in ROWS]} | change
    table = write_table(pictures / f"table.{suffix}", columns)
    with pytest.raises(ValueError, match=message):
        FolderImages(pictures, table=table, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"", "it is empty"),
        ("table.csv", b"path,color,color\na.png,red,blue\n", "two columns are called 'color'"),
        ("table.csv", b"path,color\n", "has no rows"),
        ("table.csv", b"path,color\na.png,red\nc.png\n", "row 2 does not have the 2 fields"),
        ("table.csv", b"picture,color\na.png,red\n", "none named like a path"),
        ("table.csv", b"path,color\n\xff,red\n", "is not readable"),
        ("table.parquet", b"not parquet", "is not readable as .parquet"),
    ],
)
def test_a_file_that_is_no_table_is_refused(pictures, name, content, message):
    (pictures / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        FolderImages(pictures, table=pictures / name)


@pytest.mark.parametrize("separator", [",", ";", "\t", " , "])
def test_a_table_is_read_whatever_separates_its_columns(pictures, separator):
    rows = [("Path", "color"), *(row[:2] for row in ROWS)]
    (pictures / "table.csv").write_text("\n".join(map(separator.join, rows)))
    images = FolderImages(pictures, table=pictures / "table.csv")
    assert images.class_names == {"color": ["blue", "red"]}
    np.testing.assert_array_equal(images.labels["color"], [1, 0, 1])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("numbers", [[0, 1, 2], [7, 3, 9]])
def test_the_index_of_pandas_is_not_a_labeling(pictures, suffix, numbers):
    name = "" if suffix == "csv" else "__index_level_0__"
    columns = {name: numbers, "path": [row[0] for row in ROWS], "color": [row[1] for row in ROWS]}
    images = FolderImages(pictures, table=write_table(pictures / f"table.{suffix}", columns))
    assert list(images.labels) == ["color"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_that_are_not_labelings_do_no_harm_where_others_are_chosen(pictures, suffix):
    columns = {"path": [row[0] for row in ROWS], "color": [row[1] for row in ROWS], "age": [0.5, None, 2.0]}
    images = FolderImages(pictures, table=write_table(pictures / f"table.{suffix}", columns), tasks=["color"])
    assert list(images.labels) == ["color"]


def test_lists_and_bytes_in_a_table_are_not_labelings(pictures):
    columns = {
        "path": [row[0] for row in ROWS],
        "color": [row[1] for row in ROWS],
        "x": [[1], [2], [3]],
        "y": [b"z"] * 3,
    }
    images = FolderImages(pictures, table=write_table(pictures / "table.parquet", columns))
    assert list(images.labels) == ["color"]


def test_a_table_that_does_not_exist_is_named(pictures):
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        FolderImages(pictures, table=pictures / "none.csv")


@pytest.fixture
def mini(tmp_path) -> pathlib.Path:
    """The layout of mini-ImageNet: one folder of images, and tables that split the classes."""
    for split_name, classes in {"train": ["n01", "n02"], "val": ["n03"], "test": ["n04", "n05"]}.items():
        rows = [(f"{name}{i:08d}.jpg", name) for name in classes for i in range(4)]
        for path, _ in rows:
            write(tmp_path / "images" / path, 0, (84, 84))
        write_table(tmp_path / f"{split_name}.csv", {"filename": [r[0] for r in rows], "label": [r[1] for r in rows]})
    return tmp_path


def test_mini_imagenets_split_of_classes(mini):
    train = FolderImages(mini / "images", table=mini / "train.csv", tasks=())
    test = FolderImages(mini / "images", table=mini / "test.csv")
    assert (len(train), train.labels, len(test)) == (8, {}, 8)
    assert test.class_names == {"label": ["n04", "n05"]}


def test_mini_imagenets_hundred_classes_split_within_each(mini):
    tables = [mini / f"{name}.csv" for name in ("train", "val", "test")]
    train, test = split(FolderImages(mini / "images", table=tables), test_per_class=1)
    assert train.class_names == {"label": ["n01", "n02", "n03", "n04", "n05"]}
    np.testing.assert_array_equal(np.bincount(train.labels["label"]), 3)
    np.testing.assert_array_equal(np.bincount(test.labels["label"]), 1)
    assert test.image(0).shape == (84, 84, 3)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_of_captions_is_no_labeling(pictures, suffix):
    captions = ["a red thing", "é", " two words "]
    columns = {"path": [row[0] for row in ROWS], "color": [row[1] for row in ROWS], "text": captions}
    table = write_table(pictures / f"table.{suffix}", columns)
    images = FolderImages(pictures, table=table, captions="text")
    assert images.captions == ["a red thing", "é", "two words"]
    assert list(images.labels) == ["color"]
    assert FolderImages(pictures, table=table, tasks=["color"]).captions is None
    unlabeled = FolderImages(pictures, table=table, captions="text", tasks=())
    assert (unlabeled.labels, unlabeled.captions) == ({}, images.captions)
    assert Subset(images, np.array([2, 0])).captions == ["two words", "a red thing"]


def test_captions_need_a_table(folder):
    with pytest.raises(ValueError, match="captions='text' is a column of a table: give the table"):
        FolderImages(folder, captions="text")
