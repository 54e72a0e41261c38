"""Label-free measures of a representation's spectrum, reported to predict how well it transfers.

All are functions of singular values s_1 >= s_2 >= ... of the n x d feature matrix or of eigenvalues
lambda_i = s_i^2 / n of the covariance (centered, 1/n), computed once by `singular_values`. None changes when features
are rotated or scaled; those of centered features do not change when they are translated either.
"""

import functools

import jax
import jax.numpy as jnp

from dnc.geometry.inputs import as_numbers, converted
from dnc.types import Array, ArrayLike, Float

_LIDAR_RIDGE = 1e-4  # delta of Thilak et al., relative to the mean within-sample eigenvalue


@converted(features=as_numbers)
@functools.partial(jax.jit, static_argnames="center")
def singular_values(features: Float[ArrayLike, "n d"], center: bool = True) -> Float[Array, " r"]:
    """Singular values in descending order, r = min(n, d), of the features, by default minus their mean."""
    x = jnp.asarray(features).astype(jnp.float32)
    if center:
        x = x - jnp.mean(x, axis=0, keepdims=True)
    if x.shape[0] > x.shape[1]:
        x = jnp.linalg.qr(x, mode="r")  # squaring instead (a Gram matrix) would lose the small ones
    return jnp.linalg.svd(x, compute_uv=False)


@converted(features=as_numbers)
@jax.jit
def rankme(features: Float[ArrayLike, "n d"]) -> Float[Array, ""]:
    """exp(- sum_i p_i log p_i), p_i = s_i / sum_j s_j, of the uncentered features (Garrido et al. 2023, eq. 2).

    Between 1 and min(n, d). nan for features that are all 0.
    """
    return _exponential_entropy(singular_values(features, center=False))


@converted(features=as_numbers)
@jax.jit
def effective_rank(features: Float[ArrayLike, "n d"]) -> Float[Array, ""]:
    """exp(- sum_i p_i log p_i), p_i = lambda_i / tr Sigma (Roy and Vetterli 2007, for the covariance)."""
    return _exponential_entropy(singular_values(features) ** 2)


@converted(features=as_numbers)
@jax.jit
def participation_ratio(features: Float[ArrayLike, "n d"]) -> Float[Array, ""]:
    """(tr Sigma)^2 / tr Sigma^2: the r in tr Sigma^2 = v^2 / r, which decides how far the exact certificates win.

    >>> print(f"{float(participation_ratio(jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))):.2f}")
    2.00
    """
    eigenvalues = singular_values(features) ** 2
    share = eigenvalues / jnp.sum(eigenvalues)
    return 1 / jnp.sum(share**2)


@converted(features=as_numbers)
@functools.partial(jax.jit, static_argnames=("first", "last"))
def alpha_req(features: Float[ArrayLike, "n d"], first: int = 1, last: int | None = None) -> Float[Array, ""]:
    """Decay exponent alpha of lambda_i ~ i^-alpha (Agrawal et al. 2022): near 1 is reported to transfer best.

    Least squares of log lambda_i on log i over ranks first..last (all by default) that float32 can tell from 0, with
    weights 1/i, so that every octave of ranks counts the same (Stringer et al. 2019). nan for fewer than two ranks.
    """
    s = singular_values(features)
    rank = jnp.arange(1, s.shape[0] + 1)
    numeric = s > s[0] * max(features.shape) * jnp.finfo(s.dtype).eps
    used = numeric & (rank >= first) & (rank <= (s.shape[0] if last is None else last))
    x = jnp.log(rank.astype(s.dtype))
    y = 2 * jnp.log(jnp.where(used, s, 1))
    weight = jnp.where(used, 1 / rank.astype(s.dtype), 0)
    weight = weight / jnp.sum(weight)
    x = x - jnp.sum(weight * x)
    spread = jnp.sum(weight * x**2)
    return -jnp.sum(weight * x * y) / jnp.where(jnp.sum(used) > 1, spread, jnp.nan)


@converted(features=as_numbers)
@jax.jit
def label_free(
    features: Float[ArrayLike, "n d"], centered: Float[ArrayLike, "n d"] | None = None
) -> dict[str, Float[Array, ""]]:
    """`rankme`, `effective_rank`, `participation_ratio` and `alpha_req`, by name; decompositions are shared.

    centered: the features less their mean, where float32 cannot hold both.
    """
    centered = features if centered is None else centered
    return {
        "rankme": rankme(features),
        "effective_rank": effective_rank(centered),
        "participation_ratio": participation_ratio(centered),
        "alpha_req": alpha_req(centered),
    }


@converted(views=as_numbers)
@jax.jit
def lidar(views: Float[ArrayLike, "n q d"]) -> Float[Array, ""]:
    """LiDAR (Thilak et al. 2023) of q views of each of n samples: the effective rank of linear discriminants.

    Sigma_b is the covariance of the samples' means (1/n), Sigma_w the covariance of views about them (1/(n q)) plus
    delta I with delta = 1e-4 tr(Sigma_w) / d (their 1e-4, made scale-invariant). With lambda the eigenvalues of
    Sigma_w^-1/2 Sigma_b Sigma_w^-1/2, LiDAR = exp(entropy of lambda / sum lambda). nan where views do not differ.
    """
    x = jnp.asarray(views).astype(jnp.float32)
    n, q, d = x.shape
    means = jnp.mean(x, axis=1)
    residuals = (x - means[:, None, :]).reshape(n * q, d)
    means = means - jnp.mean(means, axis=0, keepdims=True)
    within = jnp.dot(residuals.T, residuals, precision="highest") / (n * q)
    ridge = _LIDAR_RIDGE * jnp.trace(within) / d
    values, vectors = jnp.linalg.eigh(within)
    whitened = jnp.dot(means, vectors, precision="highest") / jnp.sqrt(jnp.maximum(values, 0) + ridge)[None, :]
    return _exponential_entropy(singular_values(whitened, center=False) ** 2)


def _exponential_entropy(weights: Float[Array, " r"]) -> Float[Array, ""]:
    p = weights / jnp.sum(weights)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(p)))
