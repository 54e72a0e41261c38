"""Heads: what training puts on top of the features and evaluation takes off again."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.normalization import at_least_float32, batch_norm
from dnc.types import Array, Float


class Projector(nnx.Module):
    """A multilayer perceptron; `widths` lists every layer's outputs, the last is the embedding's dimension.

    norm: hidden layers are Dense (no bias), BatchNorm, ReLU instead of Dense, ReLU.
    last_bias: whether the last layer, which nothing follows, has a bias.
    dtype: type of the matrix products; parameters are float32, normalisation and the output at least.
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
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer(x)
            if norm is not None:
                x = norm(x, use_running_average=not train)
            x = nnx.relu(x)
        return self.last(x).astype(at_least_float32(self.dtype))
