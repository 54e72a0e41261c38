"""The command: tables of labels, and mistakes, one after the other in one process."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.features.test_embedding import random_dinov2

TABLES = {
    "ok.csv": ["path,color,id", "0.png,red,0", "1.png,blue,1", "2.png,red,2", "3.png,blue,3"],
    "split.csv": ["path,color,split", "0.png,red,a", "1.png,blue,a", "2.png,red,a", "3.png,blue,a"],
}
CASES = {
    "id": ["--images=photos/ok.csv", "--output=id.npz"],
    "unknown": ["--images=photos/ok.csv", "--output=id.npz", "--tasks=colr"],
    "one class": ["--images=photos/split.csv", "--output=id.npz"],
    "both": ["--images=photos/ok.csv", "--output=id.npz", "--tasks=color", "--nolabels"],
    "full": ["--images=photos", "--output=full.npz"],
    "foreign": ["--images=photos", "--output=photos/mine.npz"],
    "chosen": ["--images=photos/ok.csv", "--output=chosen.npz", "--tasks=color"],
    "corrected": ["--images=./photos//ok.csv", "--output=chosen.npz", "--tasks=color"],
    "layers": ["--images=photos/ok.csv", "--output=layers.npz", "--tasks=color", "--layers=all", "--features=all"],
    "tokens": ["--images=photos/ok.csv", "--output=tokens.npz", "--tasks=color", "--layers=all", "--features=clss"],
    "steps": ["--images=photos/ok.csv", "--output=steps.npz", "--steps=all"],
    "unlabeled": ["--images=photos/ok.csv", "--output=unlabeled.npz", "--nolabels"],
}
ONE_AFTER_THE_OTHER = """
import json, pathlib, resource, sys
from absl import app, flags
from absl.testing import flagsaver
from dnc.commands import embed
for name, arguments in json.loads(sys.argv[1]).items():
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 if name == "full" else limit, limit))
    if name == "corrected":
        table = pathlib.Path("photos/ok.csv")
        table.write_text(table.read_text().replace("red", "green"))
    print("CASE", name, flush=True)
    print("CASE", name, file=sys.stderr, flush=True)
    with flagsaver.flagsaver():
        try:
            embed._run(flags.FLAGS(["embed", "--pretrained=encoder", *arguments]))
        except app.UsageError as wrong:
            print("usage:", wrong, file=sys.stderr)
        except SystemExit as stopped:
            print(stopped.code, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    random_dinov2(folder / "encoder")
    (folder / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (40, 40), (60 * index, 0, 0)).save(folder / "photos" / f"{index}.png")
    for name, lines in TABLES.items():
        (folder / "photos" / name).write_text("\n".join(lines))
    np.savez(folder / "photos" / "mine.npz", mine=np.arange(3))
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(CASES)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = {}
    for text in (done.stdout, done.stderr):
        for part in text.split("CASE ")[1:]:
            name, _, rest = part.partition("\n")
            said[name] = said.get(name, "") + rest
    return folder, said


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("id", "error: 4 of the 4 classes of task 'id' have fewer than two images, such as '0'"),
        ("id", "leave that labeling out (--tasks=color)"),
        ("unknown", "tasks='colr' is not known: did you mean 'color'?"),
        ("one class", "task 'split' has only the class 'a'"),
        ("both", "usage: --tasks chooses labelings, and --nolabels takes none"),
        ("full", "The whole shards are kept: make room, then start again\n74\n"),
        ("foreign", "error: output=photos/mine.npz exists, and is not a file that dnc embed wrote"),
        ("chosen", "chosen.npz: 4 features of dimension 24"),
        (
            "layers",
            "layers.npz: 4 features of dimension 96 in 4 sets from encoder (dinov2, block01.cls to output.mean)",
        ),
        ("tokens", "features='clss' is not known: did you mean 'cls'?"),
        ("steps", "usage: --steps applies to a run"),
        ("corrected", "chosen.npz: the labels are replaced by those that the images have now"),
    ],
)
def test_what_the_command_says(outcome, case, message):
    assert message in outcome[1][case]
    assert "Traceback" not in outcome[1][case]


def test_what_the_command_leaves(outcome):
    folder, _ = outcome
    files = {path.name for path in folder.iterdir()}
    assert files == {"encoder", "photos", "chosen.npz", "layers.npz", "unlabeled.npz"}
    with np.load(folder / "chosen.npz") as arrays:
        assert set(arrays) == {"features", "ids", "labels_color", "class_names_color", "embedding"}
        assert arrays["class_names_color"].tolist() == ["blue", "green"]
    with np.load(folder / "layers.npz") as arrays:
        names = [name for name in arrays if name.startswith("features")]
        assert names == [f"features_{layer}.{token}" for layer in ("block01", "output") for token in ("cls", "mean")]
    with np.load(folder / "unlabeled.npz") as arrays:
        assert set(arrays) == {"features", "ids", "embedding"}
    with np.load(folder / "photos" / "mine.npz") as arrays:
        assert arrays["mine"].tolist() == [0, 1, 2]
