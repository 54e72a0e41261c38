"""`dnc COMMAND`: picks the command, nothing else."""

import importlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import dnc
from dnc import __main__


def run(*arguments, **environment):
    command = [sys.executable, "-m", "dnc", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0)])
def test_the_commands_are_listed(arguments, code):
    result = run(*arguments)
    assert result.returncode == code
    assert all(f"  {command} " in result.stdout for command in ("train", "embed", "analyze"))


@pytest.mark.parametrize(
    ("command", "purpose", "flag"),
    [
        ("train", "Pretrain an encoder", "workdir"),
        ("embed", "Features of images", "pretrained"),
        ("analyze", "Report on features", "least_samples"),
        ("plan", "How many labels", "target"),
    ],
)
def test_help_says_what_a_command_does_and_lists_its_flags(command, purpose, flag):
    result = run(command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: dnc {command} [--flag=value ...]\n\n{purpose}")
    assert f"\n  --{flag}: " in result.stdout
    assert "--jax_" not in result.stdout


def test_an_unknown_command_is_one_line():
    result = run("analyse")
    assert result.returncode == 1
    assert result.stderr == "error: command='analyse' is not known: did you mean 'analyze'?\n"


def test_a_backend_that_matplotlib_does_not_know_is_no_hindrance():
    result = run("analyze", "--features=gone.npz", MPLBACKEND="nonsense")
    assert result.stderr.splitlines()[-1] == "error: gone.npz does not exist or is not a file"
    assert "Traceback" not in result.stderr


def test_ctrl_c_is_one_line_and_a_second_one_ends_the_process(monkeypatch, capsys):
    imported = importlib.import_module

    def press(name):
        if name.startswith("dnc.commands"):
            raise KeyboardInterrupt
        return imported(name)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(sys, "argv", ["dnc", "analyze"])
    monkeypatch.setattr(importlib, "import_module", press)
    monkeypatch.setenv("DNC_CACHE", "off")
    try:
        with pytest.raises(SystemExit) as end:
            __main__.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def cache_folder(monkeypatch, **variables):
    """Where compiled programs are kept with these variables, and no others of a kind, set."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("JAX_", "XDG_", "DNC_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(os, "environ", dict(os.environ))
        __main__.keep_compiled_programs()
        return os.environ.get("JAX_COMPILATION_CACHE_DIR")


def test_compiled_programs_are_kept_in_the_users_cache_unless_told_otherwise(tmp_path, monkeypatch):
    home = str(tmp_path / "home")
    assert cache_folder(monkeypatch, HOME=home) == f"{home}/.cache/dnc/compiled"
    assert cache_folder(monkeypatch, HOME=home, XDG_CACHE_HOME=f"{home}/x") == f"{home}/x/dnc/compiled"
    assert cache_folder(monkeypatch, HOME=home, DNC_CACHE=f"{home}/y") == f"{home}/y"
    assert cache_folder(monkeypatch, HOME=home, DNC_CACHE="off") is None
    assert cache_folder(monkeypatch, HOME=home, JAX_COMPILATION_CACHE_DIR="mine") == "mine"
    assert cache_folder(monkeypatch, HOME=home, JAX_ENABLE_COMPILATION_CACHE="false") is None


def test_where_they_cannot_be_kept_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert cache_folder(monkeypatch, DNC_CACHE=f"{tmp_path}/file/cache") is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cache_folder(monkeypatch, DNC_CACHE=str(tmp_path)) is None


def test_a_command_and_a_function_share_no_name():
    assert importlib.import_module("dnc.commands.analyze").main is not dnc.analyze
    assert dnc.analyze(np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2).samples == 40
