"""Batch and layer normalization with the conventions that published self-supervised recipes assume."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from dnc.models.precision import exact_dtype


def batch_norm(
    features: int, *, zero_scale: bool = False, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
) -> nnx.BatchNorm:
    """Batch normalization over all axes but the last, `at_least_float32` whatever `dtype` the network computes in.

    y = scale * (x - mean) / sqrt(var + 1e-5) + bias;  running <- 0.9 * running + 0.1 * batch  (PyTorch's momentum 0.1)

    Variances divide by the number of values, also the running one (PyTorch's running variance divides by one less).
    Under `jit` with a sharded batch the statistics are those of the global batch. `zero_scale` starts the scale at
    zero, so that a residual block begins as the identity (Goyal et al. 2017, sec. 5.1).
    """
    init = jax.nn.initializers.zeros if zero_scale else jax.nn.initializers.ones
    # Not the compute type itself: with dtype=bfloat16 Flax would also round the running statistics it reads.
    exact = exact_dtype(dtype)
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=exact, scale_init=init, rngs=rngs)


def layer_norm(
    features: int, *, epsilon: float = 1e-6, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
) -> nnx.LayerNorm:
    """Layer normalization over the last axis, `at_least_float32` whatever `dtype` the network computes in.

    y = scale * (x - mean) / sqrt(var + epsilon) + bias, the variance as the mean square less the squared mean: its
    relative error is about 1e-7 (1 + mean^2 / var), nothing where a token's mean is within a few deviations of 0. The
    mean of squared deviations would make XLA's CPU backend take twice as long for a ViT's step, five times to compile.
    """
    return nnx.LayerNorm(features, epsilon=epsilon, dtype=exact_dtype(dtype), rngs=rngs)
