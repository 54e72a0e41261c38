"""A file is there whole or not at all."""

import errno
import json

import numpy as np
import pytest
from etils import epath

from dnc import files


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    files.write_text(tmp_path / "new" / "a.txt", "old")
    files.write_text(tmp_path / "new" / "a.txt", "É")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "É"
    files.write_json(epath.Path(tmp_path) / "b.json", {"x": [1.5]})
    assert files.read_json(tmp_path / "b.json") == {"x": [1.5]}
    files.write_npz(tmp_path / "c.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "c.npz", allow_pickle=False) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b.json", "c.npz", "new"]


def interrupted(path):
    with files.replacing(path) as scratch:
        scratch.write_text("half")
        raise KeyboardInterrupt


def test_a_failure_keeps_the_old_file_and_no_scratch(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a.txt", float("nan"))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        files.write_npz(tmp_path / "a.txt", {"x": np.array([None])})
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_what_is_not_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json' is not valid JSON"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps("ok"))
    assert files.read_json(tmp_path / "a.json") == "ok"


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    for _ in range(2):
        with files.locked(tmp_path), pytest.raises(BlockingIOError, match="in use by another process"):
            files.locked(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (ValueError("INTERNAL: writing: No space left on device [source locations]"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (OSError(errno.EIO, "Input/output error"), False),  # making room would not help
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), False),
        (ValueError("shapes differ"), False),
    ],
)
def test_disk_errors(error, expected):
    assert files.is_disk_error(error) == expected
    outer = RuntimeError("the save failed")
    outer.__cause__ = error
    assert files.is_disk_error(outer) == expected
