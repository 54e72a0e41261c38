"""Strict tests: no silent dtype or rank promotion, warnings are errors, annotations are checked as the code runs."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook("dnc", "beartype.beartype")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
