"""A batch sharded over 8 devices gives the loss and the gradients of one device, and only the traffic it must."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dnc.training.ahead_of_time import collectives
from tests.objectives.test_objectives import batch_of, functional_gradient, network_of
from tests.objectives.test_pairwise import LOSSES, embeddings

WHOLE = ["simclr", "vicreg", "directional", "clip", "siglip"]  # of those on patches, test_layouts compares the values


def sharding(*axes):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(*axes))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_do_not_depend_on_the_number_of_devices(name):
    views = embeddings(b=16, p=6)
    step = jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1)))
    expected = step(*views)
    actual = step(*(jax.device_put(view, sharding("data")) for view in views))
    assert jax.tree.leaves(actual)[0].sharding.num_devices == 8
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), actual, expected)


@functools.cache
def compiled(name):
    """The gradient's step, what it takes on one device and on eight, and its program for eight."""
    objective, network = network_of(name)
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    batch = batch_of(16)
    gradient = functional_gradient(objective, graphdef)
    step = jax.jit(lambda params, rest, views, tokens: gradient(params, rest, batch | dict(views=views, tokens=tokens)))
    views, tokens = batch["views"], batch["tokens"]
    sharded = jax.device_put(views, sharding(None, "data")), jax.device_put(tokens, sharding("data"))
    everywhere = jax.device_put((params, rest), sharding())
    return step, (params, rest, views, tokens), (*everywhere, *sharded), step.lower(*everywhere, *sharded).compile()


@pytest.mark.parametrize("name", WHOLE)
def test_parameter_gradients_and_statistics_do_not_depend_on_the_number_of_devices(name):
    step, given, sharded, program = compiled(name)
    expected, actual = step(*given), program(*sharded)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6 + 1e-5 * np.abs(e).max())  # sums in another order


@pytest.mark.parametrize(
    "name", [*WHOLE, "dino", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mae", "ijepa"))]
)
def test_images_and_activations_never_leave_their_device(name):
    """What is gathered is embeddings (2 x 16 x 8 numbers), or features for KoLeo: less than the patches' tokens."""
    exchanged = collectives(compiled(name)[-1].as_text())
    assert {"all-reduce"} <= set(exchanged) <= {"all-reduce", "all-gather"}
    gathered = exchanged.get("all-gather", (0, 0))[1]
    assert gathered <= 4096  # bytes; the images have 24,576, a ViT's tokens 16,384
