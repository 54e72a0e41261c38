"""Directional collapse as a loss: views of an image differ in no direction that leads to another image."""

import dataclasses

import jax.numpy as jnp

from dnc import errors
from dnc.models.precision import at_least_float32
from dnc.objectives.base import check_comparable, same_image
from dnc.objectives.two_views import TwoViews
from dnc.objectives.vicreg import vicreg_terms
from dnc.types import Array, Float, Metrics

BOUNDS = ("cantelli", "chebyshev")


def directional_ratios(
    first: Float[Array, "b p"], second: Float[Array, "b p"], epsilon: float = 1e-4
) -> Float[Array, "b b"]:
    """Four times the directional CDNV of all ordered pairs of images, the two views of an image taken as a class.

    x_ij = ((z_i - z_i') . (c_i - c_j))^2 / ||c_i - c_j||^4 = 4 W_ij,    c_i = (z_i + z_i') / 2,    x_ii = 0

    A class of n = 2 samples lies (z_i - z_i') / 2 to both sides of its mean, so that its variance, divided by n, along
    the axis u to another class is ((z_i - z_i') . u)^2 / 4. One product of [2b, p] and [p, b] gives all pairs.

    Squared distances have `epsilon` times their mean added, so that images with the same center give 0 and a finite
    gradient, and 1e-12, for a batch with one center. Otherwise rotating, translating and scaling change nothing.
    """
    check_comparable(first)
    first, second = at_least_float32(first), at_least_float32(second)
    b = first.shape[0]
    difference, centers = first - second, (first + second) / 2
    centers -= jnp.mean(centers, axis=0, keepdims=True)  # far from the origin, products would cancel
    both = jnp.stack([difference, centers], axis=1)  # side by side: an example stays on its device
    products = jnp.einsum("isp,jp->isj", both, centers, precision="highest")
    along = jnp.sum(difference * centers, axis=1)[:, None] - products[:, 0]
    norms = jnp.sum(centers**2, axis=1)
    squared = jnp.maximum(norms[:, None] + norms[None, :] - 2 * products[:, 1], 0)
    mean_squared = 2 * jnp.sum(norms) / (b - 1)  # over ordered pairs of distinct images
    ratios = (along / (squared + epsilon * mean_squared + 1e-12)) ** 2
    return jnp.where(same_image(b), 0, ratios)


def directional_loss(
    first: Float[Array, "b p"], second: Float[Array, "b p"], bound: str = "cantelli", epsilon: float = 1e-4
) -> Float[Array, ""]:
    """Mean over ordered pairs of images of a bound on confusing them, times p/2.

    L = (p/2) 1/(b (b-1)) sum_{i != j} x_ij / (1 + x_ij)    "cantelli"
    L = (p/2) 1/(b (b-1)) sum_{i != j} x_ij                 "chebyshev"

    With x = 4 W as in `directional_ratios`, the terms are Cantelli's and Chebyshev's bound of the probability that a
    view of image i, drawn anew, lies nearer to c_j than to c_i, both centers known: `exact_cantelli` and
    `exact_chebyshev` for infinitely many shots. The first is at most 1, so that a few pairs of nearly equal centers do
    not drown all others.

    The factor makes weights comparable in all dimensions: where the views of an image have nothing in common, all of
    them independent N(0, s^2 I), x is 2 / (p - 2) on average.
    """
    if bound not in BOUNDS:
        raise errors.unknown("bound", bound, BOUNDS)
    ratios = directional_ratios(first, second, epsilon)
    terms = ratios / (1 + ratios) if bound == "cantelli" else ratios
    b, p = first.shape
    return p / 2 * jnp.sum(terms) / (b * (b - 1))


@dataclasses.dataclass(frozen=True)
class DirectionalCollapse(TwoViews):
    """Minimize the directional CDNV between the images of the batch; variance and covariance as in VICReg.

    L = directional_weight directional_loss + variance_weight v + covariance_weight c

    The first term does not ask views to be equal, only not to differ where it could be mistaken for another image. It
    has no scale, and is 0 where equal views lie on a line: v and c of `vicreg_terms`, which keep all dimensions at unit
    deviation and uncorrelated, exclude that.

    bound, epsilon: see `directional_loss`. widths, norm, last_bias: the projector, see `Projector`.
    """

    directional_weight: float = 10.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0
    bound: str = "cantelli"
    epsilon: float = 1e-4

    def __post_init__(self):
        if self.bound not in BOUNDS:
            raise errors.unknown("bound", self.bound, BOUNDS)
        if not self.epsilon > 0:
            raise ValueError(f"epsilon={self.epsilon} must be positive: equal images have distance 0")

    def compare(self, first: Float[Array, "b p"], second: Float[Array, "b p"]) -> tuple[Float[Array, ""], Metrics]:
        metrics = vicreg_terms(first, second)
        metrics["directional"] = directional_loss(first, second, self.bound, self.epsilon)
        loss = (
            self.directional_weight * metrics["directional"]
            + self.variance_weight * metrics["variance"]
            + self.covariance_weight * metrics["covariance"]
        )
        return loss, metrics
