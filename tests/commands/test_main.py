"""`dnc COMMAND`: picks the command, nothing else."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

import dnc


def run(*arguments, **environment):
    command = [sys.executable, "-m", "dnc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0)])
def test_the_commands_are_listed(arguments, code):
    result = run(*arguments)
    assert result.returncode == code
    assert all(f"  {command} " in result.stdout for command in ("train", "embed", "analyze"))


def test_an_unknown_command_is_one_line():
    result = run("analyse")
    assert result.returncode == 1
    assert result.stderr == "error: command='analyse' is not known: did you mean 'analyze'?\n"


def test_a_backend_that_matplotlib_does_not_know_is_no_hindrance():
    result = run("analyze", "--features=gone.npz", MPLBACKEND="nonsense")
    assert result.stderr.splitlines()[-1] == "error: gone.npz does not exist or is not a file"
    assert "Traceback" not in result.stderr


def test_a_command_and_a_function_share_no_name():
    assert importlib.import_module("dnc.commands.analyze").main is not dnc.analyze
    assert dnc.analyze(np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2).samples == 40
