import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc import compiling
from dnc.compiling import jit_quickly

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def power(monkeypatch):
    """With an option that every XLA knows, so that a nested program would raise if it were given one."""
    monkeypatch.setattr(compiling, "_quick_options", lambda: dict(compiling.ONCE))
    calls = []

    def function(x, *, exponent):
        calls.append(exponent)
        return x**exponent

    return jit_quickly(function, static_argnames="exponent"), calls


def test_is_compiled_once_for_equal_shapes_and_static_arguments(power):
    function, traced = power
    for exponent in (2, 2, 3):
        np.testing.assert_array_equal(function(X, exponent=exponent), X**exponent)
    assert traced == [2, 3]


def test_works_within_other_programs(power):
    function, _ = power
    np.testing.assert_array_equal(jax.jit(lambda x: function(x, exponent=2) + 1)(X), X**2 + 1)
    np.testing.assert_array_equal(jax.vmap(lambda row: function(row, exponent=2))(X), X**2)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(function(x, exponent=3)))(X), 3 * X**2, rtol=1e-6)
    assert jax.eval_shape(lambda x: function(x, exponent=2), X).shape == (2, 3)


@pytest.mark.parametrize(
    ("version", "backend", "options"),
    [
        ("0.10.2", "cpu", {"xla_cpu_use_fusion_emitters": False}),
        ("0.9.0", "cpu", {"xla_cpu_use_fusion_emitters": False}),
        ("0.10.2", "gpu", {}),
        ("0.11.0", "cpu", {}),  # it knows no such option
        ("1.0", "cpu", {}),
    ],
)
def test_only_an_xla_that_has_the_choice_is_given_it(monkeypatch, version, backend, options):
    monkeypatch.setattr(compiling.metadata, "version", lambda name: version)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert compiling._quick_options() == options
