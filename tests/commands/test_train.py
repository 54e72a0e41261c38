"""The command line: overrides, a misspelled key, a missing flag."""

import re
import subprocess
import sys

import pytest

from tests.training import tiny


def train(*flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dnc", "train", f"--config={tiny.__file__}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_misspelled_key_names_its_neighbor(tmp_path):
    result = train(f"--workdir={tmp_path}", "--config.train.bach_size=8")
    assert result.returncode == 1
    assert re.search('error: --config has no entry bach_size.*"batch_size"', result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_an_entry_that_the_file_lacks_is_one_line(tmp_path):
    result = train(f"--workdir={tmp_path}", "--config.data.augmentation.size=8")
    assert result.returncode == 1
    assert re.search("error: --config has no entry size: .* write a new entry into the file", result.stderr)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("flags", [[], ["--workdir=x", "surplus"]])
def test_a_missing_or_surplus_argument_is_explained(flags):
    result = train(*flags)
    assert result.returncode != 0
    assert ("workdir" in result.stderr) or ("surplus" in result.stderr + result.stdout)


def test_a_config_that_does_not_fit_is_one_line_and_claims_nothing(tmp_path):
    """One mistake for all: the messages of the others are those of `loop.prepare`."""
    result = train(f"--workdir={tmp_path}/run", "--config.train.accumulate=0")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search("error: .*accumulate=0: give the number of micro-batches, 1 or more", result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


def test_settings_of_a_published_encoder_are_refused_for_a_run(tmp_path):
    command = [sys.executable, "-m", "dnc", "embed", f"--workdir={tmp_path}", "--precision=bfloat16", "--output=x.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode != 0
    assert "--features and --precision are of a published encoder, not of a run" in result.stdout + result.stderr


def test_embedding_a_folder_without_a_run_is_one_line(tmp_path):
    command = [sys.executable, "-m", "dnc", "embed", f"--workdir={tmp_path}", f"--output={tmp_path}/features.npz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .* has no config.json: .*\n", result.stderr.splitlines(keepends=True)[-1])
    assert "Traceback" not in result.stderr
