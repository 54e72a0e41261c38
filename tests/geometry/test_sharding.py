"""One program on one device, on a mesh of eight, and in two processes."""

import functools
import os
import socket
import subprocess
import sys
import textwrap

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dnc.geometry.measure import pair_geometry
from tests.samples import assert_leaves_close, clusters

K, N, D = 5, 960, 24


OVERLAPS = ["none", "exact", pytest.param("cauchy_schwarz", marks=pytest.mark.slow)]


@functools.cache
def on_mesh(overlap):
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, vector = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data", None), ("data",)))
    features, labels = clusters(seed=0, n=N, k=K, d=D, offset=1e3)
    arguments = jax.device_put(features, rows), jax.device_put(labels, vector)
    measure = functools.partial(pair_geometry, num_classes=K, overlap=overlap, parts=8)
    return measure, arguments, (features, labels)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_eight_devices_equal_one(overlap):
    measure, arguments, local = on_mesh(overlap)
    sharded, expected = measure(*arguments), pair_geometry(*local, K, overlap=overlap)
    assert_leaves_close(sharded, expected, rtol=1e-6)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_samples_stay_on_their_device(overlap):
    """Only class sums cross: nothing that is exchanged has as many rows as there are samples on a device."""
    measure, arguments, _ = on_mesh(overlap)
    compiled = jax.jit(measure).lower(*arguments).compile().as_text()
    collectives = [line for line in compiled.splitlines() if " all-" in line or "collective-permute" in line]
    assert any("all-reduce" in line for line in collectives)
    assert not [line for line in collectives if "all-gather(" in line or "all-to-all(" in line]


def test_rows_that_do_not_divide_into_parts_are_refused():
    features, labels = clusters(seed=0, n=100, k=K, d=D)
    with pytest.raises(ValueError, match="100 rows do not divide into 8 equal parts"):
        pair_geometry(features, labels, K, parts=8)


PROCESS = """
    import sys
    import jax
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=int(sys.argv[1]))
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    from dnc.geometry.measure import pair_geometry
    from tests.samples import clusters

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    features, labels = clusters(n=800, k=5, d=24)
    mine = slice(400 * jax.process_index(), 400 * (jax.process_index() + 1))
    whole = [
        jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), array[mine])
        for array in (features, labels)
    ]
    result = np.asarray(pair_geometry(*whole, 5, parts=4).directional_cdnv)
    expected = np.asarray(pair_geometry(features, labels, 5).directional_cdnv)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    print("equal")
"""


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    script = tmp_path / "process.py"
    script.write_text(textwrap.dedent(PROCESS))
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": "."}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(index), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
        )
        for index in (0, 1)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [output.strip().splitlines()[-1] for output in outputs] == ["equal", "equal"], outputs
