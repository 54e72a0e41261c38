"""What many tests build on, and how trees are compared.

Synthetic labeled features are skewed, anisotropic and unbalanced, because symmetry hides mistakes.
"""

import jax
import numpy as np
from flax import nnx


def clusters(seed=0, n=500, k=4, d=16, offset=0.0, scale=1.0, balanced=False):
    """Skewed anisotropic clusters; every class has at least n // (2 k) samples. Returns float32 [n, d], int32 [n]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    if not balanced:
        labels[n // 2 :] = rng.choice(k, n - n // 2, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    rng.shuffle(labels)
    spread = rng.uniform(0.1, 2.0, (k, d))
    noise = (rng.exponential(size=(n, d)) - 1) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d)) / np.sqrt(d))
    features = rng.normal(size=(k, d))[labels] + spread[labels] * noise
    return (scale * features + offset).astype(np.float32), labels.astype(np.int32)


def factorial(seed=0, levels=(4, 3, 2), renders=12, d=12):
    """A full factorial of factors, equally many samples per cell: labels are balanced and independent exactly."""
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), -1).reshape(-1, len(levels))
    table = np.repeat(cells, renders, axis=0)[rng.permutation(len(cells) * renders)].astype(np.int32)
    features = rng.normal(size=(len(table), d)) * rng.uniform(0.05, 0.6, d)
    for factor, k in enumerate(levels):
        features += rng.normal(size=(k, d))[table[:, factor]]
    features += 0.5 * rng.normal(size=(levels[0], levels[1], d))[table[:, 0], table[:, 1]]  # an interaction
    return features.astype(np.float32), {f"factor{i}": table[:, i] for i in range(len(levels))}


def stacked(classes):
    """Features and labels of the samples of each class."""
    return np.concatenate(classes), np.repeat(np.arange(len(classes), dtype=np.int32), [len(z) for z in classes])


def assert_leaves_close(actual, expected, rtol):
    """Every array of two trees, relative to its largest value."""
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        scale = np.nanmax(np.abs(np.asarray(wanted, np.float64)))
        np.testing.assert_allclose(leaf, wanted, rtol=rtol, atol=rtol * scale, err_msg=jax.tree_util.keystr(path))


def rngs() -> nnx.Rngs:
    """Compiling threefry for each shape takes seconds on a CPU; the hardware generator's key does not."""
    return nnx.Rngs(params=jax.random.key(0, impl="rbg"))


def parameters(tree: nnx.Module | nnx.State) -> dict[str, jax.Array]:
    """Of a network, or what belongs to its parameters, by dotted path."""
    state = tree if isinstance(tree, nnx.State) else nnx.state(tree, nnx.Param)
    return {".".join(map(str, path)): p.get_value() for path, p in nnx.to_flat_state(state)}


def off_diagonal(matrix):
    """Entries [i, j], i != j, of the last two axes, flattened."""
    matrix = np.asarray(matrix)
    return matrix[..., ~np.eye(matrix.shape[-1], dtype=bool)]
