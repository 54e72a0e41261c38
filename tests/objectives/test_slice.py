"""Every objective trains a network: functional step, running statistics, strict dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from dnc.models import ResNet
from dnc.objectives import OBJECTIVES
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import warmup_cosine

SETTINGS = {
    "simclr": {"widths": (32, 16)},
    "vicreg": {"widths": (32, 32)},
    "supervised": {"task": "color", "num_classes": 4},
}


def batch_of(size: int):
    key = jax.random.key(7)
    views = jax.random.normal(key, (2, size, 16, 16, 3))
    return {"views": views, "labels": {"color": jnp.arange(size) % 4}}


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_functional_step_lowers_the_loss_and_updates_running_statistics(name, dtype):
    objective = OBJECTIVES[name](**SETTINGS[name])
    rngs = nnx.Rngs(0)
    network = objective.network(ResNet(18, "cifar_s2", width=4, dtype=dtype, rngs=rngs), rngs=rngs)
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    optimizer = make_optimizer("adamw", warmup_cosine(3e-3, 2, 20), weight_decay=1e-4, clip_norm=3.0)
    state = optimizer.init(params)
    batch = batch_of(8)

    @jax.jit
    def step(params, rest, state):
        def loss(params):
            network = nnx.merge(graphdef, params, rest, copy=True)
            value, metrics = objective.loss(network, batch, jax.random.key(0))
            _, _, rest_now = nnx.split(network, nnx.Param, ...)
            return value, (metrics, rest_now)

        (value, (metrics, rest_now)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state_now = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), rest_now, state_now, value, metrics

    before, values = rest, []
    for _ in range(10):
        params, rest, state, value, metrics = step(params, rest, state)
        values.append(float(value))
    assert values[-1] < values[0]
    assert all(np.isfinite(values))
    assert all(m.shape == () and m.dtype == jnp.float32 and bool(jnp.isfinite(m)) for m in metrics.values())
    assert {x.dtype for x in jax.tree.leaves((params, rest))} == {jnp.dtype("float32")}
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, rest)
    assert all(jax.tree.leaves(moved))
