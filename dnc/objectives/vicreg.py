"""VICReg: equal views, dimensions that vary, dimensions that do not covary."""

import dataclasses

import jax
import jax.numpy as jnp

from dnc.models.precision import at_least_float32
from dnc.objectives.base import check_comparable
from dnc.objectives.two_views import TwoViews
from dnc.types import Array, Float, Metrics


def invariance(first: Float[Array, "b p"], second: Float[Array, "b p"]) -> Float[Array, ""]:
    """Mean squared difference of the views, over batch and dimensions."""
    return jnp.mean((first - second) ** 2)


def variance_hinge(z: Float[Array, "b p"]) -> Float[Array, ""]:
    """Mean over dimensions of relu(1 - sqrt(var + 1e-4)); the variance divides by b - 1."""
    return jnp.mean(jax.nn.relu(1.0 - jnp.sqrt(jnp.var(z, axis=0, ddof=1) + 1e-4)))


def covariance_penalty(z: Float[Array, "b p"]) -> Float[Array, ""]:
    """Sum over pairs of distinct dimensions of the squared covariance, divided by p; the covariance by b - 1."""
    b, p = z.shape
    centered = z - jnp.mean(z, axis=0, keepdims=True)
    covariance = jnp.dot(centered.T, centered, precision="highest") / (b - 1)
    return jnp.sum(jnp.where(jnp.eye(p, dtype=bool), 0.0, covariance) ** 2) / p


def vicreg_terms(first: Float[Array, "b p"], second: Float[Array, "b p"]) -> Metrics:
    """The three unweighted terms of `vicreg_loss`."""
    check_comparable(first)
    first, second = at_least_float32(first), at_least_float32(second)
    return {
        "invariance": invariance(first, second),
        "variance": (variance_hinge(first) + variance_hinge(second)) / 2,
        "covariance": covariance_penalty(first) + covariance_penalty(second),
    }


def vicreg_loss(
    first: Float[Array, "b p"],
    second: Float[Array, "b p"],
    invariance_weight: float | Float[Array, ""] = 25.0,
    variance_weight: float | Float[Array, ""] = 25.0,
    covariance_weight: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Variance-invariance-covariance regularization (Bardes et al. 2022), as in the authors' code.

    L = lambda mean (z - z')^2 + mu/2 [h(z) + h(z')] + nu [c(z) + c(z')]
    h(z) = 1/p sum_j relu(1 - sqrt(Var z_j + 1e-4)),    c(z) = 1/p sum_{i != j} Cov(z)_ij^2

    Variances and covariances are over the global batch and divide by b - 1. The 1/2 is in the authors' code, not in
    the paper's equation 6.
    """
    terms = vicreg_terms(first, second)
    return (
        invariance_weight * terms["invariance"]
        + variance_weight * terms["variance"]
        + covariance_weight * terms["covariance"]
    )


@dataclasses.dataclass(frozen=True)
class VICReg(TwoViews):
    """Keep views equal, each dimension's deviation above 1, and dimensions uncorrelated (Bardes et al. 2022).

    invariance_weight, variance_weight, covariance_weight: lambda, mu and nu of `vicreg_loss`. Code that adds the two
    views' variance terms without halving them (solo-learn's, for one) means twice its number by this variance_weight.
    widths, norm, last_bias: the expander, see `Projector`.
    """

    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0

    def compare(self, first: Float[Array, "b p"], second: Float[Array, "b p"]) -> tuple[Float[Array, ""], Metrics]:
        weights = (self.invariance_weight, self.variance_weight, self.covariance_weight)
        metrics = vicreg_terms(first, second)
        metrics["embedding_std"] = jnp.mean(jnp.std(jnp.stack([first, second]), axis=1, ddof=1))
        return vicreg_loss(first, second, *weights), metrics
