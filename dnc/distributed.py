"""Devices and processes: the one place that knows how many there are.

The program is written for the global batch, on a mesh of two axes. `data` splits the batch. `fsdp` splits it as well,
and with it every large parameter and its optimizer state. Under jit a loss or a BatchNorm over a sharded batch is
already global, and XLA inserts what has to be exchanged.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH = PartitionSpec(("data", "fsdp"))
MAX_CPU_DEVICES = 8  # each holds the parameters, and all share the cores
COLLECTIVE_TIMEOUT_SECONDS = 86_400  # XLA's default of 40 is less than some steps take
MIN_SHARDED_SIZE = 2**16  # elements of the smallest parameter that is split over `fsdp`


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def initialize(multihost: bool = False, batch_size: int | None = None, fsdp: int = 1) -> None:
    """Join the other processes of this run; call it before anything touches a device.

    On a Cloud TPU pod slice this is automatic. Elsewhere `multihost` asks for it: SLURM and Open MPI are
    recognized, and any other launcher sets JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID.

    A single process on CPUs makes a device of each core it may use, up to eight, such that their number divides
    `batch_size` and is divisible by `fsdp`; each holds the parameters. On 2 cores a SimCLR step of a ResNet-18 of width
    64 is then 1.2 times as fast as on one device, whose operations XLA's threads share. JAX_NUM_CPU_DEVICES=1 makes
    only one. Containers that limit CPU time without pinning cores are not recognized.
    """
    if jax.distributed.is_initialized():
        return
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    on_pod = "," in hosts and " " not in hosts  # without a TPU, libtpu writes a sentence there
    if not (multihost or on_pod):
        _make_cores_devices(batch_size, fsdp)
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    jax.distributed.initialize(
        num_processes=None if count is None else int(count), process_id=None if index is None else int(index)
    )


def _make_cores_devices(batch_size: int | None, fsdp: int) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    timeout = "--xla_cpu_collective_call_terminate_timeout_seconds"
    if timeout not in flags and (not flags or flags.startswith("-")):  # otherwise XLA_FLAGS names a flag file
        os.environ["XLA_FLAGS"] = f"{flags} {timeout}={COLLECTIVE_TIMEOUT_SECONDS}".strip()
    if jax.config.values["jax_num_cpu_devices"] >= 0 or "host_platform_device_count" in flags:
        return
    counts = range(1, min(available_cores(), MAX_CPU_DEVICES) + 1)
    fitting = [n for n in counts if n % max(fsdp, 1) == 0 and (batch_size is None or batch_size % n == 0)]
    with suppress(RuntimeError):  # a device is already in use
        jax.config.update("jax_num_cpu_devices", max(fitting, default=1))


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices (by default all) as data x fsdp; raises ValueError where fsdp does not divide their number."""
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"fsdp={fsdp} does not divide {len(devices)} devices: choose a divisor")
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((len(devices) // fsdp, fsdp), ("data", "fsdp"), axis_types=types, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of values of which every device holds a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices."""
    return NamedSharding(mesh, BATCH)


def state_sharding(mesh: Mesh, state: Any) -> Any:
    """For each array of a state (or its abstract shape): the longest axis divisible by `fsdp` is split over it.

    Arrays of fewer than `MIN_SHARDED_SIZE` elements, and those without an axis divisible by `fsdp`, are replicated.
    Optimizer moments of their parameter's shape have its sharding; Muon's, stacks of matrices, have their own.
    """
    parts = mesh.shape["fsdp"]

    def sharding(x: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % parts == 0]
        if parts == 1 or x.size < MIN_SHARDED_SIZE or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "fsdp"))

    return jax.tree.map(sharding, state)


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process's devices hold, in the order `shard_batch` expects them."""
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    ranges = {index[0].indices(batch_size) for index in places.values() if index is not None}
    return np.concatenate([np.arange(*bounds) for bounds in sorted(ranges)])


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Host arrays to global arrays, their first axis split over all devices; each process passes its `local_rows`."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_divisible(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises ValueError unless every micro-batch of the global batch splits evenly over the mesh."""
    if accumulate < 1:
        raise ValueError(f"accumulate={accumulate}: give the number of micro-batches, 1 or more")
    parts = mesh.size * accumulate
    if batch_size <= 0 or batch_size % parts:
        pieces = f"{mesh.size} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        raise ValueError(
            f"batch_size={batch_size} does not divide over {pieces}: choose a positive multiple of {parts}."
        )


def is_lead() -> bool:
    """Whether this process writes files and prints (exactly one does)."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process. Every process must call this at the same step."""
    if is_alone():
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def wait_for_all(where: str) -> None:
    """Return when every process has reached this call."""
    if not is_alone():
        multihost_utils.sync_global_devices(where)
