import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry import symmetric


@pytest.mark.parametrize("d", [1, 3, 255, 256, 301])
def test_stripes_hold_the_matrix(d):
    rng = np.random.default_rng(d)
    matrices, stripes = [], []
    for _ in range(3):
        r, w = rng.normal(size=(2, 20, d)).astype(np.float32), rng.uniform(0, 2, (2, 20)).astype(np.float32)
        matrices.append(
            sum(np.float64(a).T @ (np.float64(b)[:, None] * np.float64(a)) for a, b in zip(r, w, strict=True))
        )
        total = symmetric.zeros(d)
        for a, b in zip(r, w, strict=True):
            total = jax.jit(symmetric.add_outer_products)(total, jnp.asarray(a), jnp.asarray(b))
        stripes.append(total)
    x = rng.normal(size=d).astype(np.float32)
    for matrix, total in zip(matrices, stripes, strict=True):
        np.testing.assert_allclose(symmetric.dense(total), matrix, atol=1e-5 * np.abs(matrix).max())
        np.testing.assert_allclose(symmetric.times(total, jnp.asarray(x)), matrix @ x, atol=1e-4 * np.abs(matrix).max())
        again = symmetric.stripes_of(symmetric.flat(total), d)
        np.testing.assert_allclose(symmetric.dense(again), symmetric.dense(total), rtol=1e-6)
    flats = jnp.stack([*map(symmetric.flat, stripes)])
    expected = [[np.trace(a @ b) for b in matrices] for a in matrices]
    np.testing.assert_allclose(symmetric.gram(flats), expected, rtol=1e-5)
    assert flats.shape[1] <= 0.63 * d * d + 4096 or d < 256
