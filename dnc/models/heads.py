"""Heads: what training puts on top of the features and evaluation takes off again."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.normalization import batch_norm
from dnc.models.precision import at_least_float32, exact_dtype
from dnc.models.transformer import ACTIVATIONS, INITIALIZERS
from dnc.types import Array, Bool, Float


def normalize(x: Float[Array, "*b p"]) -> Float[Array, "*b p"]:
    """x / max(||x||, 1e-12) along the last axis, with a zero (not nan) gradient at x = 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-24))


class Projector(nnx.Module):
    """A multilayer perceptron; `widths` lists every layer's outputs, the last is the embedding's dimension.

    norm: hidden layers are Dense (no bias), BatchNorm, ReLU instead of Dense, ReLU.
    last_bias: whether the last layer, which nothing follows, has a bias.
    dtype: type of the matrix products; parameters are float32, normalization and the output at least.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        *,
        norm: bool = False,
        last_bias: bool = True,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)}: give at least one layer, each at least one unit wide")
        *hidden, out_features = widths
        layers = []
        for width in hidden:
            layers.append(nnx.Linear(in_features, width, use_bias=not norm, dtype=dtype, rngs=rngs))
            in_features = width
        self.layers = nnx.List(layers)
        self.norms = nnx.List([batch_norm(width, dtype=dtype, rngs=rngs) if norm else None for width in hidden])
        self.last = nnx.Linear(in_features, out_features, use_bias=last_bias, dtype=dtype, rngs=rngs)
        self.features = out_features
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b d"], *, train: bool) -> Float[Array, "b p"]:
        return self.outputs(x, train=train)[-1]

    def outputs(self, x: Float[Array, "b d"], *, train: bool) -> list[Float[Array, "b _"]]:
        """What every layer gives, hidden ones after their ReLU, at least in float32."""
        found = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x)
            if norm is not None:
                x = norm(x, use_running_average=not train)
            x = nnx.relu(x)
            found.append(at_least_float32(x))
        return [*found, at_least_float32(self.last(x))]


class PrototypeHead(nnx.Module):
    """Cosines of an embedding with learned prototypes: DINO's head (Caron et al. 2021, appendix C).

    Three layers with GELU between them, `hidden` wide and `bottleneck` at the end; the embedding has length 1, as do
    the prototypes, the rows of the weight-normalized last layer (their lengths, PyTorch's `weight_g`, stay 1).
    Only directions count, so that weight decay does not change what the last layer computes.
    dtype: type of the matrix products; lengths and the output are at least float32.
    """

    def __init__(
        self,
        in_features: int,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        widths = (in_features, hidden, hidden, bottleneck)
        if min(*widths, prototypes) < 1:
            raise ValueError(f"{prototypes=}, {hidden=}, {bottleneck=}: give at least 1 of each")
        init = INITIALIZERS["normal"]
        self.layers = nnx.List(
            [
                nnx.Linear(fan_in, fan_out, kernel_init=init, dtype=dtype, rngs=rngs)
                for fan_in, fan_out in itertools.pairwise(widths)
            ]
        )
        uniform = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=1, out_axis=0)  # PyTorch's
        self.prototypes = nnx.Param(uniform(rngs.params(), (prototypes, bottleneck), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "b d"], *, frozen: Bool[Array, ""] | None = None) -> Float[Array, "b k"]:
        """The cosines. While `frozen`, the prototypes have no gradient."""
        first, second, third = self.layers
        gelu = ACTIVATIONS["gelu"]
        z = normalize(at_least_float32(third(gelu(second(gelu(first(x.astype(self.dtype))))))))
        prototypes = self.prototypes[...]
        if frozen is not None:
            prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        return jnp.dot(
            z.astype(self.dtype),
            normalize(prototypes).astype(self.dtype).T,
            preferred_element_type=exact_dtype(self.dtype),
        )
