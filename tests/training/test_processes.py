"""Two processes of two devices each: trained, killed, and resumed by two processes and by one."""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.training import tiny
from tests.training.runs import kill_when, metrics, saved_state, trained

LAUNCHER = pathlib.Path(__file__).parents[2] / "experiments" / "launch" / "processes.sh"
pytestmark = pytest.mark.slow


def start(workdir: pathlib.Path, processes: int, devices: int, steps: int = 12) -> subprocess.Popen:
    """The run, as the leader of a process group, on four devices in all."""
    workdir.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {"PROCESSES": str(processes), "DEVICES": str(devices), "PYTHON": sys.executable}
    flags = [f"--config={tiny.__file__}", f"--workdir={workdir}", f"--config.train.duration.steps={steps}", "--fsdp=2"]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen([str(LAUNCHER), *flags], env=environment, start_new_session=True, **streams)


def finish(workdir: pathlib.Path, processes: int, devices: int) -> None:
    output, _ = (run := start(workdir, processes, devices)).communicate(timeout=500)
    assert run.returncode == 0, output


def parameters(workdir: pathlib.Path) -> list[np.ndarray]:
    return [
        np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(saved_state(workdir, tiny.get_config(), 12).params)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An unbroken run of two processes."""
    finish(workdir := tmp_path_factory.mktemp("whole") / "run", 2, 2)
    return workdir


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The same, both processes killed after the seventh step."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    kill_when(start(workdir, 2, 2), lambda: len(trained(workdir)) >= 7)
    assert len(trained(workdir)) < 12
    return workdir


def test_resumed_by_two_processes_the_run_ends_in_the_same_bits(whole, killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    finish(tmp_path / "run", 2, 2)
    assert metrics(tmp_path / "run") == metrics(whole)
    for actual, expected in zip(parameters(tmp_path / "run"), parameters(whole), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_resumed_by_one_process_it_sees_the_same_examples_and_ends_in_the_same_parameters(whole, killed, tmp_path):
    shutil.copytree(killed, tmp_path / "run")
    finish(tmp_path / "run", 1, 4)
    assert [line["examples"] for line in trained(tmp_path / "run")] == [line["examples"] for line in trained(whole)]
    for actual, expected in zip(parameters(tmp_path / "run"), parameters(whole), strict=True):
        assert np.linalg.norm(actual - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-9


def test_when_the_first_process_is_refused_its_folder_both_end_at_once_and_say_why(tmp_path):
    (workdir := tmp_path / "run").mkdir()
    with (workdir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        output, _ = (run := start(workdir, 2, 2)).communicate(timeout=95)  # the coordinator would notice after 100 s
    assert run.returncode != 0
    assert "is in use by another process" in output
    assert "could not be locked by the lead process" in output


def test_when_one_process_is_killed_the_other_ends_at_once_in_one_line(tmp_path):
    run = start(workdir := tmp_path / "run", 2, 2, steps=100_000)
    while run.poll() is None and len(trained(workdir)) < 2:
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    variables = {int(child): pathlib.Path(f"/proc/{child}/environ").read_bytes() for child in children}
    (second,) = (child for child, values in variables.items() if b"JAX_PROCESS_ID=1" in values)
    os.kill(second, signal.SIGKILL)
    output, _ = run.communicate(timeout=60)  # the coordinator would notice after 100 s
    assert run.returncode == 128 + signal.SIGKILL
    assert "another process of this run has ended" in output, output[-3000:]
    assert "Traceback" not in output
