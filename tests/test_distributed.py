"""Devices of a process alone: a core each, in a process of its own because a backend starts once."""

import os
import subprocess
import sys

import pytest

from dnc.distributed import MOST_ON_CPU, available_cores

PROGRAM = """
import sys, jax
from dnc import distributed
distributed.initialize(batch_size=int(sys.argv[1]))
mesh = distributed.make_mesh()
halves = distributed.shard_batch(mesh, {"x": jax.numpy.arange(int(sys.argv[1]))})
print(jax.device_count(), jax.jit(lambda batch: batch["x"].sum())(halves))
"""


def devices_and_sum(batch_size: int, **environment: str) -> list[int]:
    plain = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-c", PROGRAM, str(batch_size)]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_each_core_is_a_device_where_they_divide_the_batch():
    cores = min(available_cores(), MOST_ON_CPU)
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
