"""The notebooks run from the first cell to the last, and are committed without outputs."""

import ast
import json
import os
import pathlib

import nbclient
import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image
from sklearn.datasets import load_digits

from tests import quickly
from tests.models.pretrained.published import WIDTH, save_random

COLABS = pathlib.Path(__file__).parent.parent / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))

# Smallest settings with which every cell still has something to show.
TINY = {
    "geometry": {"samples": 120, "repeats": 3, "shots": [1, 10], "dimensions": [2, 8]},
    "multitask": {"steps": 3, "batch_size": 16, "width": 4, "image_size": 16, "renders": 2, "shots": [1, 5]},
    "pretrained_certificates": {"shots": [1, 5], "repeats": 3},
    "how_many_labels": {"repeats": 3},
}
PICTURES = {"geometry": 5, "multitask": 5, "pretrained_certificates": 2, "how_many_labels": 2}


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_notebook(name, settings):
    """Executes a notebook, these settings over its own; raises CellExecutionError with the cell and its traceback."""
    notebook = nbformat.read(COLABS / f"{name}.ipynb", as_version=4)
    (position,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    known = f"assert set({settings}) <= set(SETTINGS)\n"
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell(f"{known}SETTINGS.update({settings})"))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(COLABS)}}
    ).execute(env=os.environ | {"XLA_FLAGS": quickly.XLA_FLAGS})  # one device
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_of_outputs(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_parses_and_installs_first(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert "    %pip install --quiet -r {ROOT}/requirements.txt {ROOT}\n" in cells[0].source
    assert cells[0].source == code_cells(nbformat.read(NOTEBOOKS[0], as_version=4))[0].source
    assert [cell.metadata.get("tags") for cell in cells[:3]] == [None, ["parameters"], None]
    for cell in cells:
        ast.parse(TransformerManager().transform_cell(cell.source))


def test_every_notebook_has_tiny_settings():
    assert {path.stem for path in NOTEBOOKS} == set(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geometry", "how_many_labels"])
def test_notebook_runs(name):
    run_notebook(name, TINY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multitask", "pretrained_certificates"])
def test_notebook_runs_and_reports(name, tmp_path):
    run_notebook(name, TINY[name] | {"workdir": str(tmp_path)})
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.mark.slow
def test_pretrained_certificates_runs_with_an_encoder_and_images(tmp_path):
    """Random weights that transformers wrote, and two folders of digits."""
    save_random("Dinov2Model", tmp_path / "encoder")
    digits = load_digits(n_class=2)
    for index, (image, digit) in enumerate(zip(digits.images[:60], digits.target[:60], strict=True)):
        folder = tmp_path / "images" / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{index}.png")
    settings = {"encoder": str(tmp_path / "encoder"), "images": str(tmp_path / "images"), "workdir": str(tmp_path)}
    run_notebook("pretrained_certificates", TINY["pretrained_certificates"] | settings)
    record = json.loads((tmp_path / "report" / "analysis.json").read_text())
    assert (record["samples"], record["dimension"], list(record["tasks"])) == (60, WIDTH, ["class"])
