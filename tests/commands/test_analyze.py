"""The command: results run as a person runs it, mistakes one after the other in one process."""

import json
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from dnc.record import HardSample
from tests.samples import clusters
from tests.scripts import imported

analyze = imported("dnc.commands.analyze")


def run(*arguments, cwd):
    command = [sys.executable, "-m", "dnc", "analyze", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


PARTS = ("geometry", "measured error", "certificates", "predicted error", "pairs to look at", "guarantee")


@pytest.fixture
def embeddings(tmp_path):
    features, labels = clusters(n=80, k=2, d=4, balanced=True)
    ids = np.array([f"photos/{row}.png" for row in range(80)])
    names = np.array(["<b>ant</b>", "bee"])
    np.savez(tmp_path / "some.npz", features=features, labels=labels, class_names=names, ids=ids)
    return tmp_path / "some.npz"


def test_embeddings_become_a_report(embeddings):
    folder = embeddings.parent
    (folder / "photos").mkdir()
    for row in range(1, 80):
        Image.new("RGB", (40, 20), (row, 0, 0)).save(folder / f"photos/{row}.png")
    result = run(
        "--features=some.npz", f"--output={folder}/out", "--shots=1,5", "--repeats=2", "--images=.", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    stages = [re.fullmatch(r"(.*) \.\.\. \d+\.\d s", line) for line in result.stderr.splitlines()]
    named = [stage[1] for stage in stages if stage]
    assert named == ["reading: some.npz", *(f"labels: {part}" for part in PARTS), "spectrum", "page"]
    assert "labels: 2 classes, CDNV" in result.stdout
    assert f"report: {folder}/out/index.html" in result.stdout
    assert "fontTools" not in result.stderr
    assert "pruned" not in result.stderr
    page = (folder / "out/index.html").read_text()
    assert "<b>ant</b>" not in page
    assert "dnc analyze --features=some.npz --output=out --shots=1,5 --repeats=2 --images=." in page
    assert page.count('<img src="data:image/') >= 11
    assert str(folder) not in page
    found = json.loads((folder / "out/analysis.json").read_text())
    assert found["name"] == "some"
    assert found["tasks"]["labels"]["shots"] == [1, 5]
    assert any((folder / "out/figures").iterdir())


MISTAKES = {
    "error: gone.npz does not exist": ["--features=gone.npz"],
    "error: shots=500 needs 501 samples of every class": ["--features=some.npz", "--shots=1,500"],
    "error: output='some.npz' is a file": ["--features=some.npz", "--output=some.npz"],
    "error: extra.npz does not exist": ["--features=some.npz", "extra.npz"],
    "error: the same file is named twice": ["some.npz", "some.npz"],
    "error: --shots=a,b must be numbers": ["some.npz", "--shots=a,b"],
    "error: --superclasses=some.npz is not JSON": ["some.npz", "--superclasses=some.npz"],
    "error: tasks='shape' is not known": ["some.npz", "--tasks=shape"],
    "error: output='.' holds other files": ["--features=some.npz", "--output=."],
    "error: some.npz holds no 'x': it has class_names": ["some.npz", "--features_key=x"],
    "error: some.npz holds no 'y': it has class_names": ["some.npz", "--labels_key=y"],
    "error: output='some.npz/out' cannot be written": ["some.npz", "--output=some.npz/out"],
    "error: --images=gone is not a folder": ["some.npz", "--images=gone"],
    "error: the page could not be written": ["some.npz", "--output=full", "--shots=1", "--repeats=1"],
}
ONE_AFTER_THE_OTHER = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from dnc.commands import analyze
from dnc.report import html
def full(run):
    raise OSError(28, "No space left on device")
html._contents = full
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        try:
            analyze._run(flags.FLAGS(["analyze", *arguments]))
        except SystemExit as stopped:
            print(json.dumps(stopped.code))
"""


def test_mistakes_are_one_line_and_lose_no_numbers(embeddings):
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(list(MISTAKES.values()))]
    result = subprocess.run(command, cwd=embeddings.parent, capture_output=True, text=True, check=True)
    messages = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('"error')]
    assert len(messages) == len(MISTAKES)
    for message, start in zip(messages, MISTAKES, strict=True):
        assert message.startswith(start)
        assert "\n" not in message
    assert messages[-1].endswith("No space left on device): the numbers are above and in full/analysis.json")
    assert "labels: 2 classes, CDNV" in result.stdout
    kept = json.loads((embeddings.parent / "full/analysis.json").read_text())
    assert kept["tasks"]["labels"]["error"]["mean"]
    assert {path.name for path in embeddings.parent.iterdir()} == {"some.npz", "full"}
    assert not (embeddings.parent / "full/index.html").exists()


def test_images_are_read_below_their_folder_alone(tmp_path, monkeypatch):
    root = tmp_path / "photos"
    root.mkdir()
    for path in (tmp_path / "secret.png", root / "in.png"):
        Image.new("RGB", (300, 200)).save(path)
    (root / "broken.png").write_bytes(b"no image")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    monkeypatch.setattr(analyze, "_IMAGES", types.SimpleNamespace(value=None))
    assert analyze._pictures() is None
    monkeypatch.setattr(analyze, "_IMAGES", types.SimpleNamespace(value=root))
    picture = analyze._pictures()

    def found(name):
        return picture(HardSample(0, "a", "b", 1.0, False, name))

    assert found("in.png").size == (300, 200)
    outside = ("../secret.png", f"{tmp_path}/secret.png", "link.png")
    unreadable = ("loop.png", "folder.png", "pipe.png", "broken.png", "gone.png", "nul\0.png", "long" * 2000, "", None)
    for name in (*outside, *unreadable):
        assert found(name) is None


def test_commas_separate_files_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.npz").touch()
    assert analyze._split("a,b.npz") == ["a,b.npz"]
    assert analyze._split("a.npz,b.npz") == ["a.npz", "b.npz"]


def test_nesting_without_end_is_not_json(tmp_path, monkeypatch):
    (tmp_path / "deep.json").write_text("[" * 10**6)
    monkeypatch.setattr(analyze, "_SUPERCLASSES", types.SimpleNamespace(value=str(tmp_path / "deep.json")))
    with pytest.raises(ValueError, match=r"deep\.json is not JSON"):
        analyze._superclasses()


def test_no_features_at_all_are_explained(tmp_path):
    result = run(cwd=tmp_path)
    assert result.returncode != 0
    assert "no features: name a file" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_feature_sets_of_one_file_are_compared_by_depth(embeddings):
    folder = embeddings.parent
    with np.load(embeddings) as arrays:
        x, labels = arrays["features"], arrays["labels"]
    sets = {"features_block02.cls": x, "features_block01.cls": x[:, :2]}
    np.savez(folder / "layers.npz", labels=labels, **sets)
    command = ["--features=layers.npz", f"--output={folder}/out", "--shots=1,5", "--repeats=2"]
    result = run(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    record = json.loads((folder / "out/layers.json").read_text())
    assert record["sets"] == ["block02.cls", "block01.cls"]
    assert "2 feature sets" in (folder / "out/index.html").read_text()
    one = run(*command[:1], "--features_key=features_block01.cls", f"--output={folder}/one", "--shots=1", cwd=folder)
    assert one.returncode == 0, one.stderr
    assert json.loads((folder / "one/analysis.json").read_text())["dimension"] == 2


def test_several_files_are_compared(embeddings):
    folder = embeddings.parent
    with np.load(embeddings) as file:
        arrays = dict(file)
    for name, noise in (("worse", 2.0), ("worst", 8.0)):
        rng = np.random.default_rng(0)
        arrays["features"] = arrays["features"] + noise * rng.normal(size=arrays["features"].shape).astype(np.float32)
        np.savez(folder / f"{name}.npz", **arrays)
    result = run("some.npz", "worse.npz", "worst.npz", "--output=out", "--shots=1,5", "--repeats=5", cwd=folder)
    assert result.returncode == 0, result.stderr
    found = json.loads((folder / "out/comparison.json").read_text())
    at_five = [row for row in found["ranking"] if row["shots"] == 5]
    assert [row["encoder"] for row in at_five] == ["some", "worse", "worst"]
    assert at_five[0]["place"] == 1
    assert all(row["error_low"] <= row["error"] <= row["error_high"] for row in found["ranking"])
    rho = next(row for row in found["rank_correlations"] if row["shots"] == 5)
    assert rho["mean_directional_cdnv"] == 1.0
    page = (folder / "out/index.html").read_text()
    for name in ("some", "worse", "worst"):
        assert f'href="{name}/index.html"' in page
        assert (folder / "out" / name / "index.html").exists()
    again = run("some.npz", "worse.npz", "--output=out", "--shots=1,5", "--repeats=2", cwd=folder)
    assert again.returncode == 0, again.stderr
