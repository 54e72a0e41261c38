"""The command line: overrides, a misspelt key, a missing flag."""

import subprocess
import sys

import pytest

from tests.training import tiny


def train(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dnc.train", f"--config={tiny.__file__}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_misspelt_key_names_its_neighbour(tmp_path):
    result = train(f"--workdir={tmp_path}", "--config.train.bach_size=8")
    assert result.returncode != 0
    assert "batch_size" in result.stderr + result.stdout


@pytest.mark.parametrize("flags", [[], ["--workdir=x", "surplus"]])
def test_a_missing_or_surplus_argument_is_explained(flags):
    result = train(*flags)
    assert result.returncode != 0
    assert ("workdir" in result.stderr) or ("surplus" in result.stderr + result.stdout)
