import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.geometry import symmetric


@pytest.mark.parametrize("d", [1, 255, 256, 301])
def test_stripes_hold_the_matrix(d):
    rng = np.random.default_rng(d)
    r, w = rng.normal(size=(3, 2, 20, d)).astype(np.float32), rng.uniform(0, 2, (3, 2, 20)).astype(np.float32)
    x = rng.normal(size=d).astype(np.float32)

    @jax.jit
    def striped(r, w):
        total = symmetric.zeros(d)
        for a, b in zip(r, w, strict=True):
            total = symmetric.add_outer_products(total, a, b)
        flat = symmetric.flat(total)
        product = symmetric.times(total, jnp.asarray(x))
        return symmetric.dense(total), product, symmetric.dense(symmetric.stripes_of(flat, d)), flat

    matrices, flats = np.einsum("cpsi,cps,cpsj->cij", *map(np.float64, (r, w, r)), optimize=True), []
    for matrix, *parts in zip(matrices, r, w, strict=True):
        dense, product, again, flat = striped(*parts)
        np.testing.assert_allclose(dense, matrix, atol=1e-5 * np.abs(matrix).max())
        np.testing.assert_allclose(product, matrix @ x, atol=1e-4 * np.abs(matrix).max())
        np.testing.assert_allclose(again, dense, rtol=1e-6)
        flats.append(flat)
    expected = [[np.trace(a @ b) for b in matrices] for a in matrices]
    np.testing.assert_allclose(symmetric.gram(jnp.stack(flats)), expected, rtol=1e-5)
    assert flats[0].size <= 0.63 * d * d + 4096 or d < 256
