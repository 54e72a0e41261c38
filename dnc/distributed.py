"""Devices and processes: the one place that knows how many there are.

The program is written for the global batch; a one-dimensional mesh named `data` shards it, and everything else is
replicated. Under jit a loss or a BatchNorm over a sharded batch is already global.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the single axis `data` over the given devices (all by default)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Host arrays to global arrays, their first axis split over `data`; each process passes its own share."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of values that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def check_divisible(mesh: Mesh, batch_size: int) -> None:
    """Raises ValueError unless the global batch splits evenly over the mesh."""
    if batch_size <= 0 or batch_size % mesh.size:
        raise ValueError(
            f"batch_size={batch_size} does not divide over {mesh.size} devices: "
            f"choose a positive multiple of {mesh.size}."
        )


def is_lead() -> bool:
    """Whether this process writes files and prints (exactly one does)."""
    return jax.process_index() == 0
