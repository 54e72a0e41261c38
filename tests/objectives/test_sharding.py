"""A batch sharded over 8 devices gives the loss and the gradients of one device, and only the traffic it must."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dnc.objectives.clip import clip_loss
from dnc.objectives.directional_collapse import directional_loss
from dnc.objectives.siglip import siglip_loss
from dnc.objectives.simclr import decoupled_nt_xent, nt_xent
from dnc.objectives.vicreg import vicreg_loss
from tests.objectives.test_objectives import batch_of, network_of

LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, 0.2),
    "decoupled_nt_xent": lambda a, b: decoupled_nt_xent(a, b, 0.2),
    "vicreg": vicreg_loss,
    "directional": directional_loss,
    "clip": lambda a, b: clip_loss(a, b, jnp.log(10.0)),
    "siglip": lambda a, b: siglip_loss(a, b, jnp.log(10.0), jnp.array(-3.0)),
}


def sharding(*axes):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(*axes))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_do_not_depend_on_the_number_of_devices(name):
    keys = jax.random.split(jax.random.key(0))
    views = [0.8 * jax.random.normal(key, (16, 6)) for key in keys]
    step = jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))
    expected = step(*views)
    actual = step(*(jax.device_put(view, sharding("data")) for view in views))
    assert jax.tree.leaves(actual)[0].sharding.num_devices == 8
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), actual, expected)


@pytest.mark.parametrize("name", ["simclr", "vicreg", "directional", "clip", "siglip"])
def test_parameter_gradients_and_statistics_do_not_depend_on_the_number_of_devices(name):
    objective, network = network_of(name)
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, rest, views, tokens):
        network = nnx.merge(graphdef, params, rest, copy=True)
        batch = {"views": views, "labels": {"color": jnp.zeros(16, jnp.int32)}, "tokens": tokens}
        value, metrics = objective.loss(network, batch, jax.random.key(0))
        return value, (metrics, nnx.state(network, nnx.BatchStat))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    views, tokens = batch_of(16)["views"], batch_of(16)["tokens"]
    everywhere = jax.device_put((params, rest), sharding())
    sharded = jax.device_put(views, sharding(None, "data")), jax.device_put(tokens, sharding("data"))
    expected, actual = step(params, rest, views, tokens), step(*everywhere, *sharded)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6 + 1e-5 * np.abs(e).max())  # sums in another order

    # Images and activations never leave their device: what is gathered is at most the embeddings, 2 x 16 x 8 numbers.
    program = step.lower(*everywhere, *sharded).compile().as_text()
    assert not re.findall(r"= \S+ (?:all-to-all|collective-permute)(?:-start)?\(", program)
    gathered = [
        np.prod([int(n) for n in shape.split(",")])
        for shape in re.findall(r"= f32\[([\d,]+)\]\S* all-gather(?:-start)?\(", program)
    ]
    assert max(gathered, default=0) <= 2 * 16 * 8
