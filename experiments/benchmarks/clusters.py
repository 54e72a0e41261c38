"""Made features for benchmarks of geometry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET = (1_281_167, 1000, 768)  # samples, classes, dimensions


SIZES = ("equal", "random", "Zipf", "one half")  # of classes


def labels_of(n: int, k: int, sizes: str, rng: np.random.Generator) -> np.ndarray:
    """Shuffled labels: classes of equal size; of any class with the same probability; of class c with one that falls as
    1 / (c + 1); or half of one class. Of each class at least two.
    """
    if sizes == "equal":
        return rng.permutation(np.arange(n) % k).astype(np.int32)
    share = {"random": np.ones(k), "Zipf": 1 / np.arange(1, k + 1), "one half": np.append(k - 1, np.ones(k - 1))}[sizes]
    drawn = rng.choice(k, n - 2 * k, p=share / share.sum())
    return rng.permutation(np.concatenate([drawn, np.arange(2 * k) % k])).astype(np.int32)


def features_of(n: int, k: int, d: int, seed: int = 0, sizes: str = "equal") -> tuple[jax.Array, jax.Array]:
    """Gaussian clusters and shuffled labels; see `labels_of`."""
    rng = np.random.default_rng(seed)
    labels = labels_of(n, k, sizes, rng)
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
