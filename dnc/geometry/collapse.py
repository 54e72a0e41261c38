"""Classical neural collapse, NC1 to NC4 (Papyan, Han and Donoho 2020), to compare with directional collapse.

Supervised training past zero error drives all four toward 0 (Papyan et al.); self-supervised training need not.
"""

import functools
from operator import itemgetter

import jax
import jax.numpy as jnp

from dnc.compiling import jit_quickly
from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.geometry.moments import center_by_class
from dnc.geometry.pytree import array_dataclass
from dnc.types import Array, ArrayLike, Float, Int


@array_dataclass
class NeuralCollapse:
    """NC1 and NC2 of one labeling; every value is 0 at full collapse and has no unit."""

    within_class_variability: Float[Array, ""]  # NC1: tr(Sigma_W Sigma_B^+) / k
    norm_variation: Float[Array, ""]  # NC2, equal norms: std_c ||m_c|| / mean_c ||m_c||
    angle_variation: Float[Array, ""]  # NC2, equal angles: std over pairs of cos(m_i, m_j)
    simplex_deviation: Float[Array, ""]  # NC2, largest angles: mean over pairs of |cos(m_i, m_j) + 1/(k-1)|


@converted(features=as_numbers, labels=as_codes)
@functools.partial(jit_quickly, static_argnames="num_classes")
def neural_collapse(
    features: Float[ArrayLike, "n d"], labels: Int[ArrayLike, " n"], num_classes: int
) -> NeuralCollapse:
    """NC1 and NC2 with m_c = mu_c - (mean of the class means).

    Sigma_W = (1/n) sum over samples of (z - mu_c)(z - mu_c)^T and Sigma_B = (1/k) sum_c m_c m_c^T. The pseudo-inverse
    takes the singular directions of the class means that float32 can tell from 0. nan where all means coincide.
    Pure and jitted, `num_classes` static; every class must have samples.
    """
    centered, count = center_by_class(features, labels, num_classes)
    means = centered.mean - jnp.mean(centered.mean, axis=0, keepdims=True)
    _, size, directions = jnp.linalg.svd(means, full_matrices=False)

    def terms(r: Array, w: Array, _: Array) -> dict[str, Array]:
        along = jnp.einsum("bsd,rd->bsr", r, directions, precision="highest")
        within = jnp.einsum("bs,bsr->br", w, along**2, precision="highest")
        return {"within": within, "total": jnp.sum(w * jnp.sum(r * r, axis=2), axis=1)}

    within, total = (jnp.sum(x, axis=0) / jnp.sum(count) for x in itemgetter("within", "total")(centered.sums(terms)))
    # Class means round relative to what they are means of.
    kept = size > max(means.shape) * jnp.finfo(means.dtype).eps * (size[0] + jnp.sqrt(total))
    variability = jnp.sum(jnp.where(kept, within / jnp.where(kept, size, 1) ** 2, 0))  # k / k cancels
    cosine = _pair_cosines(means)
    norm = jnp.linalg.norm(means, axis=1)
    exists = jnp.where(kept[0], 1, jnp.nan)
    return NeuralCollapse(
        within_class_variability=variability * exists,
        norm_variation=jnp.std(norm) / jnp.mean(norm),
        angle_variation=jnp.std(cosine),
        simplex_deviation=jnp.mean(jnp.abs(cosine + 1 / (num_classes - 1))),
    )


@converted(means=as_numbers, classifier=as_numbers)
@jax.jit
def self_duality(means: Float[ArrayLike, "k d"], classifier: Float[ArrayLike, "k d"]) -> Float[Array, ""]:
    """NC3: || W / ||W||_F - M / ||M||_F ||_F of a linear classifier's rows W and the centered class means M."""
    means, rows = jnp.asarray(means), jnp.asarray(classifier)
    centered = means - jnp.mean(means, axis=0, keepdims=True)
    return jnp.linalg.norm(rows / jnp.linalg.norm(rows) - centered / jnp.linalg.norm(centered))


@converted(features=as_numbers, means=as_numbers, predictions=as_codes)
@jax.jit
def nearest_center_disagreement(
    features: Float[ArrayLike, "n d"], means: Float[ArrayLike, "k d"], predictions: Int[ArrayLike, " n"]
) -> Float[Array, ""]:
    """NC4: fraction of samples that a classifier (its `predictions`) and the nearest class center label differently."""
    means = jnp.asarray(means)
    center = jnp.mean(means, axis=0, keepdims=True)  # a common offset would cost the distances their digits
    x, m = jnp.asarray(features) - center, means - center
    distances = jnp.sum(m**2, axis=1)[None, :] - 2 * jnp.dot(x, m.T, precision="highest")
    return jnp.mean((jnp.argmin(distances, axis=1) != jnp.asarray(predictions)).astype(x.dtype))


def _pair_cosines(means: Float[Array, "k d"]) -> Float[Array, " p"]:
    """Cosines of all unordered pairs."""
    unit = means / jnp.linalg.norm(means, axis=1, keepdims=True)
    return jnp.dot(unit, unit.T, precision="highest")[jnp.triu_indices(means.shape[0], 1)]
