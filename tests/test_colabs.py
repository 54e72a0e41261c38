"""The notebooks run from the first cell to the last, and are committed without outputs."""

import os
import pathlib

import nbclient
import nbformat
import pytest

COLABS = pathlib.Path(__file__).parent.parent / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))

# Smallest settings with which every cell still has something to show.
TINY = {"quickstart": {"steps": 3, "batch_size": 16, "width": 4, "image_size": 16, "renders": 2, "shots": [1, 5]}}

# One device instead of the tests' eight; nearly all the time is compilation, so compile without optimising.
COMPILE_FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_of_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    (position,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    known = f"assert set({TINY[path.stem]}) <= set(SETTINGS)\n"
    changes = nbformat.v4.new_code_cell(f"{known}SETTINGS.update({TINY[path.stem]}, workdir={str(tmp_path)!r})")
    notebook.cells.insert(position + 1, changes)
    environment = os.environ | {"XLA_FLAGS": COMPILE_FAST}
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env=environment)  # raises CellExecutionError with the cell and its traceback
    assert (tmp_path / "report" / "index.html").is_file()


def test_there_is_a_notebook():
    assert NOTEBOOKS
