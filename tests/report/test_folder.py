"""A report's folder: refused before the work where it cannot be written; others' files in it stay."""

import json
import pathlib

import pytest

from dnc.report import folder, html
from tests.report import synthetic

PAGE = f"<html>{folder.MARK}</html>"


def files_of(path):
    return {entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()}


def report(output, **figures):
    """A report whose figures hold these texts."""
    contents = {f"figures/{name}.svg": text for name, text in figures.items()} | {"index.html": PAGE}
    folder.write(output, contents)
    folder.keep_only(output, contents)


def test_a_report_replaces_its_own_files_and_leaves_others(tmp_path):
    output = tmp_path / "report"
    report(output, loss="old", stale="old")
    (output / "figures" / "mine.svg").write_text("mine")
    (output / "notes.txt").write_text("mine")
    report(output, loss="new")
    assert files_of(output) == {".dnc-report.json", "index.html", "notes.txt", "figures/loss.svg", "figures/mine.svg"}
    assert (output / "figures" / "loss.svg").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_file_that_no_report_wrote_is_not_overwritten(tmp_path):
    report(tmp_path, loss="old")
    (tmp_path / "figures" / "pairs.svg").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 'figures/pairs.svg', which no report wrote"):
        report(tmp_path, loss="new", pairs="new")
    assert (tmp_path / "figures" / "pairs.svg").read_text() == "mine"
    assert (tmp_path / "figures" / "loss.svg").read_text() == "old"


def test_a_report_without_a_list_owns_the_names_that_reports_use(tmp_path):
    report(tmp_path, pairs_color="old", mine="mine")
    (tmp_path / ".dnc-report.json").unlink()
    report(tmp_path, loss="new")
    assert files_of(tmp_path) == {".dnc-report.json", "index.html", "figures/loss.svg", "figures/mine.svg"}


@pytest.mark.parametrize("content", ["", "null", "3", '{"index.html": 1}'])
def test_a_damaged_list_is_none(tmp_path, content):
    report(tmp_path, loss="old", mine="mine")
    (tmp_path / ".dnc-report.json").write_text(content)
    report(tmp_path, scatter="new")
    assert files_of(tmp_path) == {".dnc-report.json", "index.html", "figures/scatter.svg", "figures/mine.svg"}
    (tmp_path / "index.html").unlink()
    (tmp_path / ".dnc-report.json").write_text(content)
    with pytest.raises(FileExistsError, match="holds other files"):
        folder.check(tmp_path)


def test_a_damaged_list_alone_is_no_other_file(tmp_path):
    (tmp_path / ".dnc-report.json").write_text("")
    report(tmp_path, loss="new")
    assert files_of(tmp_path) == {".dnc-report.json", "index.html", "figures/loss.svg"}


def test_a_link_to_the_folder_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "report"
    link.symlink_to("elsewhere")
    for _ in range(2):
        report(link, loss="new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "index.html").read_text() == PAGE


def test_a_list_names_nothing_outside_the_folder(tmp_path):
    output = tmp_path / "report"
    report(output)
    (tmp_path / "mine").write_text("mine")
    listed = ["../mine", str(tmp_path / "mine"), "figures/../../mine", "index.html"]
    (output / ".dnc-report.json").write_text(json.dumps(listed))
    report(output)
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_killed_reports_left_is_removed(tmp_path):
    output = tmp_path / "report"
    report(output, loss="old")
    left = [output / ".index.html.4711", output / "figures" / ".loss.svg.12"]
    mine = [output / ".index.html.swp", tmp_path / ".report.older" / "old" / "notes.txt", tmp_path / ".report.d" / "x"]
    unfinished = tmp_path / ".report.k3_ab12x" / "new" / "index.html"
    for path in [*left, *mine, unfinished]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    report(output, loss="new")
    assert [path for path in (*left, unfinished.parent.parent) if path.exists()] == []
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "is a file"),
        ("dangling", "is a link to 'gone', which does not exist"),
        ("full", "holds other files"),
        ("file/report", "cannot be written"),
        ("/proc/report", "cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "dangling").symlink_to("gone")
    before = files_of(tmp_path)
    with pytest.raises(OSError, match=message):
        folder.check(tmp_path / name)
    assert files_of(tmp_path) == before


def test_a_folder_that_holds_an_input_is_refused(tmp_path, monkeypatch):
    report(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in ("a.npz", "shards/a.npz", "."):
        with pytest.raises(ValueError, match=rf"output='.' holds the input '{path}'"):
            folder.check(pathlib.Path("."), [pathlib.Path(path)])
    folder.check(pathlib.Path("."), [tmp_path.parent / "a.npz"])


def test_numbers_are_there_and_the_old_page_too_when_the_page_cannot_be_made(tmp_path, monkeypatch):
    source, output = synthetic.save(tmp_path / "a.json", synthetic.analysis({"a": ("x", "y")})), tmp_path / "report"
    report(output, loss="old")

    def full(run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(html, "_contents", full)
    with pytest.raises(OSError, match="No space left"):
        html.write_report(source, output, first={"analysis.json": "{}"})
    assert files_of(output) == {".dnc-report.json", "index.html", "figures/loss.svg", "analysis.json"}
    monkeypatch.setattr(html, "_contents", lambda run: {"index.html": PAGE})
    html.write_report(source, output, first={"analysis.json": "{}"})
    assert files_of(output) == {".dnc-report.json", "index.html", "analysis.json"}
