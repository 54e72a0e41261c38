"""Within-class variance of class pairs, split into the decision axis and what is orthogonal to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int


@array_dataclass
class VarianceSplit:
    """For each pair: variance along the decision axis, and eigenvalue sums of what is orthogonal to it."""

    pairs: Int[ArrayLike, "q 2"]
    axis: Float[ArrayLike, " q"]  # u^T Sigma u
    top1: Float[ArrayLike, " q"]  # largest eigenvalue of P Sigma P, P = I - u u^T
    top10: Float[ArrayLike, " q"]  # sum of the 10 largest
    top100: Float[ArrayLike, " q"]  # sum of the 100 largest
    trace: Float[ArrayLike, " q"]  # sum of all


def spread_pairs(num_classes: int, limit: int = 10) -> Int[np.ndarray, "q 2"]:
    """At most `limit` of the k(k-1)/2 unordered class pairs, evenly spread over their list."""
    pairs = np.stack(np.triu_indices(num_classes, 1), axis=1).astype(np.int32)
    if len(pairs) <= limit:
        return pairs
    return pairs[np.linspace(0, len(pairs) - 1, limit).round().astype(int)]


def variance_split(
    features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], pairs: Int[ArrayLike, "q 2"]
) -> VarianceSplit:
    """Decision-axis and orthogonal variance of the given class pairs (Luthra et al. 2026, the variance split).

    Sigma = (n_i Sigma_i + n_j Sigma_j) / (n_i + n_j), the pair's pooled within-class covariance (1/n moments), and
    u = (mu_j - mu_i) / d_ij; axis + trace = tr Sigma. The cost of a pair is one eigendecomposition of the smaller of
    d and its number of samples. Runs on the host around one jitted program: pairs select rows of unequal number.

    Raises ValueError if a pair names a class twice or a class without samples.
    """
    labels, pairs = np.asarray(labels), np.asarray(pairs)
    counts = np.bincount(labels, minlength=int(pairs.max()) + 1)
    for i, j in pairs.tolist():
        if i == j or not (counts[i] and counts[j]):
            raise ValueError(f"pairs holds ({i}, {j}): name two different classes that have samples")
    members = [[np.flatnonzero(labels == c) for c in pair] for pair in pairs.tolist()]
    longest = max(len(first) + len(second) for first, second in members)
    rows = np.zeros((len(pairs), longest), np.int32)
    side = np.full((len(pairs), longest), -1, np.int32)  # 0: first class, 1: second, -1: padding
    for index, (first, second) in enumerate(members):
        used = len(first) + len(second)
        rows[index, :used] = np.concatenate([first, second])
        side[index, :used] = np.repeat([0, 1], [len(first), len(second)])
    parts = _split_pairs(jnp.asarray(features).astype(jnp.float32), jnp.asarray(rows), jnp.asarray(side))
    return VarianceSplit(pairs, *parts)


@jax.jit
def _split_pairs(features: Float[Array, "n d"], rows: Int[Array, "q s"], side: Int[Array, "q s"]) -> tuple[Array, ...]:
    split = functools.partial(_split_pair, features)
    return jax.lax.map(lambda pair: split(*pair), (rows, side))


def _split_pair(features: Float[Array, "n d"], rows: Int[Array, " s"], side: Int[Array, " s"]) -> tuple[Array, ...]:
    member = jax.nn.one_hot(side, 2, dtype=jnp.float32)  # padding is (0, 0)
    valid = member.sum(axis=1, keepdims=True)
    n = valid.sum()
    x = features[rows]
    x = (x - jnp.mean(x, axis=0, keepdims=True)) * valid  # a common offset would cost the means their digits
    means = jnp.dot(member.T, x, precision="highest") / member.sum(axis=0)[:, None]
    r = x - jnp.dot(member, means, precision="highest")
    axis = means[1] - means[0]
    u = axis / jnp.linalg.norm(axis)
    along = jnp.dot(r, u, precision="highest")
    r = r - along[:, None] * u[None, :]
    s, d = r.shape
    gram = jnp.dot(r, r.T, precision="highest") if s < d else jnp.dot(r.T, r, precision="highest")
    eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0) / n
    tops = [eigenvalues[:top].sum() for top in (1, 10, 100)]
    return jnp.sum(along**2) / n, *tops, jnp.sum(r * r) / n
