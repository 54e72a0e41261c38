"""Made features for benchmarks of geometry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET = (1_281_167, 1000, 768)  # samples, classes, dimensions


def features_of(n: int, k: int, d: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Gaussian clusters and shuffled labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % k).astype(np.int32)
    features = rng.normal(size=(k, d)).astype(np.float32)[labels]
    features += rng.standard_normal((n, d), dtype=np.float32)
    return jnp.asarray(features), jnp.asarray(labels)


@functools.partial(jax.jit, static_argnames=("n", "k", "d"))
def on_device(n: int, k: int, d: int) -> tuple[jax.Array, jax.Array]:
    """The same, drawn on the device: other numbers than those of `features_of`."""
    label_key, center_key, noise_key = jax.random.split(jax.random.key(0), 3)
    labels = jax.random.permutation(label_key, jnp.arange(n, dtype=jnp.int32) % k)
    centers = jax.random.normal(center_key, (k, d))
    return centers[labels] + jax.random.normal(noise_key, (n, d)), labels
