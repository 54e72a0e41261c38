"""What stays exact in a network that computes in a 16-bit type: statistics, features, embeddings, losses."""

import jax.numpy as jnp
from jax.typing import DTypeLike

from dnc.types import Array, Float


def exact_dtype(dtype: DTypeLike) -> jnp.dtype:
    """float32, or `dtype` where that is wider."""
    return jnp.dtype(dtype if jnp.finfo(dtype).bits > 32 else jnp.float32)


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x in float32, whatever the network's dtype; float64 stays."""
    return x.astype(exact_dtype(x.dtype))
