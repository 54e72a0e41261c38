"""Code of the user's own, named by a config: it runs through all commands, and never because a folder names it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from dnc.training import own_code
from tests import quickly

OWN = pathlib.Path(__file__).parent / "own_methods.py"
ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments, cwd):
    """`dnc`, away from the repository, which only PYTHONPATH makes known."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": quickly.XLA_FLAGS, "JAX_NUM_CPU_DEVICES": "1"}
    program = [sys.executable, "-c", "from dnc.__main__ import main; main()"]
    return subprocess.run([*program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "config").mkdir()
    shutil.copy(OWN, folder / "config")
    done = command("train", "--config=config/own_methods.py", "--workdir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_an_objective_a_source_and_a_measurement_of_ones_own_run_through_all_commands(run):
    lines = [json.loads(line) for line in (run / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "weight_norm" in line] == [0, 1, 2]
    embed = ("embed", "--workdir=run", "--output=features.npz", "--import=config/own_methods.py")
    done = command(*embed, cwd=run)
    assert done.returncode == 1
    assert "own_methods:" in done.stderr
    assert "give --run_images" in done.stderr
    done = command(*embed, "--run_images", cwd=run)
    assert done.returncode == 0, done.stderr
    done = command("analyze", "features.npz", "--output=report", "--shots=1,5", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "brightness: 2 classes" in done.stdout


@pytest.mark.slow
def test_what_a_runs_folder_names_is_not_executed_unasked(run):
    shutil.copy(OWN, run / "own_methods.py")  # even where it could be imported
    done = command("embed", "--workdir=run", "--output=other.npz", cwd=run)
    assert done.returncode == 1
    assert "the run's objective is 'own_methods:Attract'" in done.stderr
    assert "--import=own_methods.py" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone_module:Mine", r"config\.objective\.name='gone_module:Mine': there is no module 'gone_module'"),
        ("json:Mine", r"config\.objective\.name='json:Mine': json has no 'Mine'"),
    ],
)
def test_code_that_does_not_exist_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        own_code.load("objective", name)


@pytest.mark.parametrize(("name", "message"), [("gone.py", "does not exist"), ("gone_module", "No module named")])
def test_an_import_that_does_not_exist_is_named(name, message):
    with pytest.raises(ValueError, match=f"--import={name}.*{message}"):
        own_code.import_named([name])


def config_of(name):
    return ConfigDict({"objective": {"name": name}})


@pytest.mark.parametrize("name", ["os:system", "json:loads"])
def test_code_of_other_modules_is_refused(name):
    with pytest.raises(ValueError, match=f"the run's objective is '{name}', its author's own code"):
        own_code.refuse_others(config_of(name), ["objective"], {"own_methods"})


def test_what_an_allowed_module_imports_is_not_its_own():
    own_code.import_named(["shlex"])
    own_code.refuse_others(config_of("shlex:split"), ["objective"], {"shlex"})
    with pytest.raises(ValueError, match="which shlex imports from collections: refused"):
        own_code.refuse_others(config_of("shlex:deque"), ["objective"], {"shlex"})


def test_modules_of_the_current_folder_do_not_stand_in_for_installed_ones(tmp_path):
    (tmp_path / "absl.py").write_text("raise SystemExit('ran')")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "dnc", "embed", "--output=x.npz"]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "give --workdir" in done.stderr + done.stdout
