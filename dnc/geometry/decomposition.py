"""Within-class variance of class pairs, split into the decision axis and what is orthogonal to it."""

import jax
import jax.numpy as jnp
import numpy as np

from dnc.compiling import jit_quickly
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.moments import RESOLUTION
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


@converted(features=as_numbers, labels=as_codes)
def variance_split(
    features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], pairs: Int[ArrayLike, "q 2"]
) -> VarianceSplit:
    """Decision-axis and orthogonal variance of the given class pairs (Luthra et al. 2026, the variance split).

    Sigma = (n_i Sigma_i + n_j Sigma_j) / (n_i + n_j), the pair's pooled within-class covariance (1/n moments), and
    u = (mu_j - mu_i) / d_ij; axis + trace = tr Sigma. Where the means coincide there is no axis: nan. The cost of a
    pair is one eigendecomposition of the smaller of d and its number of samples. Runs on the host around one
    jitted program, because pairs select unequal numbers of rows.

    Raises ValueError if a pair names a class twice or a class without samples.
    """
    labels, pairs = np.asarray(labels), np.asarray(pairs)
    counts = np.bincount(labels, minlength=int(pairs.max()) + 1)
    for i, j in pairs.tolist():
        if i == j or not (counts[i] and counts[j]):
            raise ValueError(f"pairs holds ({i}, {j}): name two different classes that have samples")
    members = [[np.flatnonzero(labels == c) for c in pair] for pair in pairs.tolist()]
    longest = max(len(first) + len(second) for first, second in members)
    features = jnp.asarray(features).astype(jnp.float32)
    results = []
    for first, second in members:
        padding = longest - len(first) - len(second)
        rows = np.concatenate([first, second, np.zeros(padding, int)]).astype(np.int32)
        side = np.repeat([0, 1, -1], [len(first), len(second), padding]).astype(np.int32)
        axis, gram = _split_pair(features, jnp.asarray(rows), jnp.asarray(side))
        if not np.isfinite(axis):  # the means coincide: there is no axis
            results.append([np.nan] * 5)
            continue
        # LAPACK in float64, values only: jnp.linalg.eigvalsh computes and drops the eigenvectors
        eigenvalues = np.maximum(np.linalg.eigvalsh(np.asarray(gram, np.float64))[::-1], 0)
        results.append([float(axis), *(eigenvalues[:top].sum() for top in (1, 10, 100, None))])
    return VarianceSplit(pairs, *np.asarray(results).T)


@jit_quickly
def _split_pair(
    features: Float[Array, "n d"], rows: Int[Array, " s"], side: Int[Array, " s"]
) -> tuple[Float[Array, ""], Float[Array, "e e"]]:
    """Variance along the axis, and a matrix with the other nonzero eigenvalues. side is 0, 1, or -1 for padding."""
    member = jax.nn.one_hot(side, 2, dtype=jnp.float32)  # padding is (0, 0)
    valid = member.sum(axis=1, keepdims=True)
    n = valid.sum()
    x = features[rows]
    x = (x - jnp.mean(x, axis=0, keepdims=True)) * valid  # a common offset would cost the means their digits
    means = jnp.dot(member.T, x, precision="highest") / member.sum(axis=0)[:, None]
    r = x - jnp.dot(member, means, precision="highest")
    axis = means[1] - means[0]
    distance = jnp.linalg.norm(axis)
    apart = distance > RESOLUTION * jnp.sqrt(jnp.sum(x * x) / n)
    u = axis / jnp.where(apart, distance, jnp.nan)
    along = jnp.dot(r, u, precision="highest")
    r = r - along[:, None] * u[None, :]
    s, d = r.shape
    gram = jnp.dot(r, r.T, precision="highest") if s < d else jnp.dot(r.T, r, precision="highest")
    return jnp.sum(along**2) / n, gram / n
