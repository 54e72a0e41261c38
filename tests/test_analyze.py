"""The command, run as a person runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.samples import clusters


def run(*arguments, cwd):
    command = [sys.executable, "-m", "dnc.analyze", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def embeddings(tmp_path):
    features, labels = clusters(seed=0, n=80, k=2, d=4, balanced=True)
    np.savez(tmp_path / "some.npz", features=features, labels=labels, class_names=np.array(["<b>ant</b>", "bee"]))
    return tmp_path / "some.npz"


def test_embeddings_become_a_report(embeddings):
    folder = embeddings.parent
    result = run("--features=some.npz", "--output=out", "--shots=1,5", "--repeats=2", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "labels: 2 classes, CDNV" in result.stdout
    assert "report: out/index.html" in result.stdout
    assert "fontTools" not in result.stderr
    assert "pruned" not in result.stderr
    page = (folder / "out/index.html").read_text()
    assert "<b>ant</b>" not in page
    found = json.loads((folder / "out/analysis.json").read_text())
    assert found["name"] == "some"
    assert found["tasks"]["labels"]["shots"] == [1, 5]
    assert any((folder / "out/figures").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features=gone.npz"], "error: gone.npz does not exist"),
        (["--features=some.npz", "--shots=1,500"], "error: shots=500 needs 501 samples of every class"),
        (["--features=some.npz", "--output=some.npz"], "error: --output=some.npz is a file"),
        (["--features=some.npz", "extra"], "unexpected arguments: ['extra']"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_report(embeddings, arguments, message):
    result = run(*arguments, cwd=embeddings.parent)
    assert result.returncode != 0
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert not (embeddings.parent / "report").exists()


def test_a_folder_of_other_files_is_not_overwritten(embeddings):
    result = run("--features=some.npz", "--output=.", cwd=embeddings.parent)
    assert result.returncode != 0
    assert "error: --output=. holds other files" in result.stderr
