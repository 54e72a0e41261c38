"""Devices of a process alone: a core each, in a process of its own because a backend starts once."""

import os
import re
import subprocess
import sys

import pytest

from dnc import distributed
from dnc.distributed import MAX_CPU_DEVICES, available_cores

PROGRAM = """
import sys, jax
from dnc import distributed
distributed.initialize(batch_size=int(sys.argv[1]))
mesh = distributed.make_mesh()
halves = distributed.shard_batch(mesh, {"x": jax.numpy.arange(int(sys.argv[1]))})
print(jax.device_count(), jax.jit(lambda batch: batch["x"].sum())(halves))
"""
JOINED = """
import jax
from dnc import distributed
jax.distributed.initialize("localhost:9123", num_processes=1, process_id=0)
distributed.initialize(batch_size=64)
print(jax.config.values["jax_num_cpu_devices"])
"""
PATIENCE = """
import os
from dnc import distributed
distributed.initialize()
print(os.environ["XLA_FLAGS"])
"""


def printed(program: str, *arguments: str, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True).stdout.strip()


def devices_and_sum(batch_size: int, **environment: str) -> list[int]:
    return [int(word) for word in printed(PROGRAM, str(batch_size), **environment).split()]


def test_each_core_is_a_device_where_they_divide_the_batch():
    cores = min(available_cores(), MAX_CPU_DEVICES)
    assert devices_and_sum(4 * cores) == [cores, sum(range(4 * cores))]


@pytest.mark.parametrize(
    "environment", [{"JAX_NUM_CPU_DEVICES": "3"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}]
)
def test_what_the_environment_asks_for_stays(environment):
    assert devices_and_sum(12, **environment) == [3, 66]


def test_a_batch_that_no_number_divides_has_one_device():
    prime = 7919
    assert prime > available_cores()
    assert devices_and_sum(prime)[0] == 1


def test_fsdp_divides_the_devices_of_cores(monkeypatch):
    monkeypatch.setattr(distributed, "available_cores", lambda: 6)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    chosen = {}
    monkeypatch.setattr(distributed.jax.config, "update", chosen.__setitem__)
    distributed.initialize(batch_size=192, fsdp=4)
    assert chosen == {"jax_num_cpu_devices": 4}


def test_a_process_that_has_joined_others_keeps_its_devices():
    assert printed(JOINED) == "-1"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--xla_cpu_enable_fast_math=false", "--xla_cpu_enable_fast_math=false --xla_cpu_collective_call.*=86400"),
        ("--xla_cpu_collective_call_terminate_timeout_seconds=60", ".*=60"),
        ("/a/file/of/flags", "/a/file/of/flags"),
    ],
)
def test_flags_that_are_set_stay(flags, expected):
    assert re.fullmatch(expected, printed(PATIENCE, XLA_FLAGS=flags))
