"""What the command line and a config may not say, each in one line."""

import re
import subprocess
import sys

import pytest

from tests.training import tiny


def refused(command: str, *flags: str) -> str:
    program = [sys.executable, "-m", "dnc", command, *flags]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.train.bach_size=8", "error: --config has no entry train.bach_size: did you mean 'batch_size'"),
        ("--config.trane.batch_size=8", "error: --config has no entry trane"),
        ("--config.objective.temprature=8", "'temprature', which 'simclr' does not take: did you mean 'temperature'"),
        ("surplus", "unexpected arguments: .*surplus"),
    ],
)
def test_a_wrong_flag_is_one_line_and_claims_nothing(tmp_path, flag, message):
    output = refused("train", f"--config={tiny.__file__}", f"--workdir={tmp_path}/run", flag)
    assert re.search(message, output), output
    assert not (tmp_path / "run").exists()


def test_a_flag_can_choose_another_method(tmp_path):
    flags = ("--config.objective.name=vicreg", "--config.train.batch_size=100000")
    output = refused("train", f"--config={tiny.__file__}", f"--workdir={tmp_path}/run", *flags)
    assert output.splitlines()[0].startswith("objective=vicreg: the config file's decoupled")
    assert "batch_size=100000 is larger than" in output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: give a Python file that defines get_config()"),
        ("x = 1", "does not define get_config()"),
        ("def get_config():\n    return 3", "get_config() returns int, not a ConfigDict"),
    ],
)
@pytest.mark.parametrize("flags", [(), pytest.param(("--config.seed=3",), marks=pytest.mark.slow)])
def test_a_config_that_is_none_is_named(content, message, flags, tmp_path):
    if content is not None:
        (tmp_path / "config.py").write_text(content)
    output = refused("train", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run", *flags)
    assert output == f"error: --config={tmp_path}/config.py{':' if 'returns' in message else ''} {message}\n"


def test_a_missing_workdir_is_named():
    assert "--workdir is missing" in refused("train", f"--config={tiny.__file__}")


def test_embedding_names_what_is_not_of_a_run_and_a_folder_without_a_run(tmp_path):
    output = f"--output={tmp_path}/x.npz"
    message = "--features and --precision apply to published encoders, not to a run"
    assert message in refused("embed", f"--workdir={tmp_path}", "--precision=bfloat16", output)
    last_line = refused("embed", f"--workdir={tmp_path}", output).splitlines(keepends=True)[-1]
    assert re.fullmatch(r"error: .* has no config.json: .*\n", last_line)
