"""The launcher of several processes: which exit code it gives."""

import pathlib
import subprocess

import pytest

LAUNCHER = pathlib.Path(__file__).parents[2] / "experiments" / "launch" / "processes.sh"


@pytest.mark.parametrize(("first", "last", "expected"), [(0, 0, 0), (3, 0, 3), (3, 9, 3)])
def test_the_first_failure_gives_the_exit_code(first, last, expected, tmp_path):
    """Process 1 ends at once with `first`, process 0 a moment later, or when it is asked to, with `last`."""
    program = tmp_path / "python"
    waits = f"trap 'exit {last}' TERM; sleep 1; exit {last}"
    program.write_text(f"#!/bin/sh\n[ $JAX_PROCESS_ID = 0 ] || exit {first}\n{waits}\n")
    program.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(program), "PROCESSES": "2"}
    assert subprocess.run([str(LAUNCHER)], env=environment, check=False).returncode == expected
