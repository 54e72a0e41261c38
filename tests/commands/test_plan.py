"""The command: a plan as a person makes it, and mistakes one after the other in one process."""

import json
import subprocess
import sys

import numpy as np

from tests.samples import clusters

MISTAKES = {
    "error: gone.npz does not exist": ["--features=gone.npz"],
    "error: target_error=2.0 must lie between 0 and 1": ["--features=pilot.npz", "--target=2"],
    "error: there are several labelings": ["two.npz"],
    "error: output='full' holds other files": ["--features=pilot.npz", "--output=full"],
}
ONE_AFTER_THE_OTHER = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from dnc.commands import plan
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        try:
            plan._run(flags.FLAGS(["plan", *arguments]))
        except SystemExit as stopped:
            print(json.dumps(stopped.code))
"""


def test_a_pilot_becomes_a_table_and_a_page_and_a_mistake_one_line(tmp_path):
    features, labels = clusters(n=24, k=2, d=3, balanced=True)
    np.savez(tmp_path / "pilot.npz", features=features, labels=labels, class_names=np.array(["<b>ant</b>", "bee"]))
    np.savez(tmp_path / "two.npz", features=features, labels_a=labels, labels_b=labels)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    good = ["--features=pilot.npz", "--target=0.2", "--budget=4", "--output=out"]
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps([*MISTAKES.values(), good])]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    messages = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('"error')]
    assert [message.startswith(start) for message, start in zip(messages, MISTAKES, strict=True)] == [True] * 4
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert "pilot: 2 classes, 12 samples of each" in result.stdout
    assert "4 more labels where they help most" in result.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;ant&lt;/b&gt;" in page
    assert "<b>ant</b>" not in page
    assert (tmp_path / "out" / "figures" / "plan.svg").is_file()
    numbers = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert numbers["schema"] == "dnc.plan/1"
    assert sum(numbers["allocation"].values()) == 24 + 4
    assert len(numbers["error"]) == len(numbers["shots"])
