"""Projectors: layers, biases, normalization, types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models.heads import Projector, PrototypeHead
from tests.samples import parameters, rngs

X = jax.random.normal(jax.random.key(0), (6, 5))


def test_plain_projector_by_hand():
    head = Projector(5, (4, 3), rngs=rngs())
    hidden, last = head.layers[0], head.last
    hidden.bias[...] = jnp.linspace(-1.0, 1.0, 4)
    x = np.maximum(np.asarray(X) @ np.asarray(hidden.kernel[...]) + np.asarray(hidden.bias[...]), 0)
    expected = x @ np.asarray(last.kernel[...]) + np.asarray(last.bias[...])
    np.testing.assert_allclose(head(X, train=True), expected, rtol=1e-5, atol=1e-6)


def test_normalized_projector_by_hand():
    head = Projector(5, (4, 3), norm=True, last_bias=False, rngs=rngs())
    x = np.asarray(X) @ np.asarray(head.layers[0].kernel[...])
    x = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 0)
    np.testing.assert_allclose(head(X, train=True), x @ np.asarray(head.last.kernel[...]), rtol=1e-4, atol=1e-5)


def test_only_layers_without_normalization_have_a_bias():
    plain, normalized = Projector(5, (4, 3), rngs=rngs()), Projector(5, (4, 3), norm=True, rngs=rngs())
    assert set(parameters(plain)) == {"layers.0.kernel", "layers.0.bias", "last.kernel", "last.bias"}
    assert set(parameters(normalized)) == set(parameters(plain)) - {"layers.0.bias"} | {"norms.0.scale", "norms.0.bias"}
    assert set(parameters(Projector(5, (3,), last_bias=False, rngs=rngs()))) == {"last.kernel"}


def test_bfloat16_output_is_float32():
    head = Projector(5, (4, 3), norm=True, dtype=jnp.bfloat16, rngs=rngs())
    assert head(X, train=True).dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(nnx.state(head))} == {jnp.dtype("float32")}


def test_prototype_head_is_the_torch_one():
    """DINO's head written with torch's layers and weight_norm, given the same numbers."""
    torch = pytest.importorskip("torch")
    head = PrototypeHead(5, prototypes=7, hidden=6, bottleneck=4, rngs=rngs())
    x = torch.from_numpy(np.array(X)).float()
    for number, layer in enumerate(head.layers):
        layer.bias[...] = jnp.linspace(-0.5, 0.5, layer.bias.shape[0])
        weight, bias = (torch.from_numpy(np.array(p[...])) for p in (layer.kernel, layer.bias))
        x = torch.nn.functional.linear(x, weight.T, bias)
        x = torch.nn.functional.gelu(x) if number < 2 else torch.nn.functional.normalize(x, dim=-1)
    last = torch.nn.Linear(4, 7, bias=False)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(np.array(head.prototypes[...])))
    last = torch.nn.utils.parametrizations.weight_norm(last)
    with torch.no_grad():
        last.parametrizations.weight.original0.fill_(1.0)
        np.testing.assert_allclose(head(X), last(x).numpy(), rtol=1e-4, atol=1e-5)


def test_prototypes_start_as_torch_starts_a_layer_and_give_cosines():
    head = PrototypeHead(5, prototypes=500, hidden=6, bottleneck=64, dtype=jnp.bfloat16, rngs=rngs())
    prototypes = np.asarray(head.prototypes[...])
    assert np.abs(prototypes).max() <= 1 / 8
    np.testing.assert_allclose(prototypes.std(), 1 / 8 / np.sqrt(3), rtol=0.02)
    out = head(X)
    assert out.dtype == jnp.float32
    assert np.abs(out).max() <= 1.02


@pytest.mark.parametrize(
    ("head", "sizes", "message"),
    [
        (Projector, {"widths": ()}, "widths="),
        (Projector, {"widths": (4, 0)}, "widths="),
        (PrototypeHead, {"prototypes": 0}, "prototypes=0"),
    ],
)
def test_sizes_are_checked(head, sizes, message):
    with pytest.raises(ValueError, match=message):
        head(5, **sizes, rngs=rngs())
