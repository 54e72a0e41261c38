import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from dnc.few_shot.skewed import below, log_above, normal_score, quantile


def test_normal_probabilities_are_scipys_until_float32_has_no_other_than_one():
    y = np.linspace(-12, 5, 1001).astype(np.float32)
    np.testing.assert_allclose(below(jnp.asarray(y)), norm.cdf(y.astype(np.float64)), rtol=2e-5)
    above, expected = np.asarray(log_above(jnp.asarray(y))), norm.logsf(y.astype(np.float64))
    np.testing.assert_allclose(above[y < 2], expected[y < 2], rtol=2e-5, atol=1e-35)
    np.testing.assert_allclose(np.exp(above), np.exp(expected), atol=1e-7)


def test_beyond_it_counts_as_certain():
    far = jnp.asarray([6.0, 40.0, jnp.inf])
    np.testing.assert_array_equal(-jnp.expm1(log_above(far)), 1)
    y = np.linspace(5, 30, 200).astype(np.float32)
    np.testing.assert_allclose(log_above(jnp.asarray(y)), norm.logsf(y.astype(np.float64)), rtol=0.02)
    assert np.isnan(log_above(jnp.asarray([jnp.nan])))
    np.testing.assert_array_equal(log_above(jnp.asarray([-jnp.inf])), 0)
    assert np.all(np.isfinite(jax.vmap(jax.grad(log_above))(jnp.asarray([-40.0, 0.0, 6.0, 40.0]))))


def test_scores_are_the_inverse_of_quantiles():
    z = jnp.linspace(-2.5, 2.5, 11)
    for skewness in (-2.0, -0.3, 0.0, 1e-4, 0.5, 1.0):
        s = jnp.full_like(z, skewness)
        found = normal_score(quantile(z, s), s)
        inside = np.asarray(1 - s**2 / 36 + s * z / 6) > 0  # of the distribution
        np.testing.assert_allclose(found[inside], z[inside], atol=2e-3)
