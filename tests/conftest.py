"""Strict tests: no silent dtype or rank promotion, warnings are errors, annotations are checked as the code runs.

They run on eight CPU devices. DNC_TEST_PLATFORM=cuda runs them on the GPUs of this machine instead (several workers
share one); those that need eight devices are skipped where there are fewer.
"""

import gc
import os
import pathlib
from collections.abc import Iterator

from tests import quickly

if platform := os.environ.get("DNC_TEST_PLATFORM"):
    os.environ.setdefault("JAX_PLATFORMS", f"{platform},cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
else:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {quickly.XLA_FLAGS}")
# Workers and the programs they start share what they compile.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from jaxtyping import install_import_hook

from tests.report import browser

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("dnc", "beartype.beartype")

MAX_MAPS = 20_000


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if message := browser.untested(str(report.longrepr) for report in skipped):
        terminalreporter.section("not tested", yellow=True)
        terminalreporter.write_line(message)


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Every compiled program takes memory maps, of which Linux allows a process 65,530.

    A worker that compiled all the tests' programs crashed inside XLA's compiler when another held 31,573 maps.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAX_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
