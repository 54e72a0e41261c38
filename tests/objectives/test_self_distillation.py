"""DINO's, iBOT's and DINOv2's losses against float64 NumPy: loops, and the algorithms as the papers write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dnc.objectives import self_distillation as sd


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def distributions(shape, seed=0):
    return np.exp(log_softmax(3 * np.random.default_rng(seed).normal(size=shape)))


def float32(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.mark.parametrize(("teachers", "students"), [(2, 2), (2, 5), (1, 3), (3, 1)])
def test_views_are_compared_in_all_pairs_but_of_themselves(teachers, students):
    teacher = distributions((teachers, 4, 6))
    student = np.random.default_rng(1).uniform(-1, 1, (students, 4, 6))
    terms = [
        -np.mean(np.sum(teacher[i] * log_softmax(student[j] / 0.1), axis=-1))
        for i in range(teachers)
        for j in range(students)
        if i != j
    ]
    one, other = float32(student, teacher)
    np.testing.assert_allclose(jax.jit(sd.view_cross_entropy)(one, other, 0.1), np.mean(terms), rtol=1e-5)
    with jax.enable_x64(True):
        exact = jnp.asarray(teacher)
        loss = jax.jit(lambda x: sd.view_cross_entropy(x, exact, 0.5))
        check_grads(loss, (jnp.asarray(student),), order=1, modes=["rev"])


def test_one_view_has_no_other():
    with pytest.raises(ValueError, match="there is one"):
        sd.view_cross_entropy(jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3)) / 3, 0.1)


def test_masked_patches_weigh_equally_within_an_image_and_images_equally():
    teacher, student = distributions((3, 4, 5)), np.random.default_rng(1).uniform(-1, 1, (3, 4, 5))
    masked = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    losses = -np.sum(teacher * log_softmax(student / 0.1), axis=-1)
    expected = (losses[0, :3].mean() + losses[1, 0] + 0.0) / 3
    given = (*float32(student, teacher), 0.1, jnp.asarray(masked))
    loss, gradient = jax.jit(jax.value_and_grad(sd.patch_cross_entropy))(*given)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.any(np.asarray(gradient) != 0, axis=-1), masked)


def test_the_center_moves_to_the_mean_of_the_rows_that_count():
    center, logits = float32([1.0, -2.0], [[3.0, 4.0], [5.0, 6.0], [100.0, 100.0]])
    moved = jax.jit(sd.update_center)
    np.testing.assert_allclose(moved(center, logits[:2], 0.9), [0.9 + 0.4, -1.8 + 0.5], rtol=1e-6)
    some = jnp.array([True, True, False])
    np.testing.assert_allclose(moved(center, logits, 0.9, some), [0.9 + 0.4, -1.8 + 0.5], rtol=1e-6)
    np.testing.assert_array_equal(moved(center, logits, 0.9, jnp.zeros(3, bool)), center)


def sinkhorn_by_the_book(logits, temperature, iterations):
    """With the marginals written out: q sums to 1 over all, to 1/k for each prototype, to 1/n for each sample."""
    q = np.exp(np.asarray(logits, np.float64) / temperature).T
    q /= q.sum()
    k, n = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * k
        q /= q.sum(axis=0, keepdims=True) * n
    return (q * n).T


@pytest.mark.parametrize("iterations", [1, 3, 100])
def test_sinkhorn_knopp_is_the_algorithm(iterations):
    logits = np.random.default_rng(0).uniform(-1, 1, (12, 4))
    expected = sinkhorn_by_the_book(logits, 0.2, iterations)
    sinkhorn = jax.jit(sd.sinkhorn_knopp, static_argnums=2)
    actual = sinkhorn(*float32(logits), 0.2, iterations)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.sum(actual, axis=1), 1.0, rtol=1e-5)
    if iterations == 100:
        np.testing.assert_allclose(np.sum(actual, axis=0), 3.0, rtol=1e-4)  # every prototype as often
    more = np.concatenate([logits, 50 * np.ones((3, 4))])
    some = sinkhorn(*float32(more), 0.2, iterations, jnp.arange(15) < 12)
    np.testing.assert_allclose(some[:12], expected, rtol=1e-4, atol=1e-6)
    assert np.all(np.isfinite(some))


def test_without_any_masked_patch_loss_and_gradient_are_zero():
    """Not nan: a small batch may draw no image to mask."""
    logits, none = jnp.arange(12.0).reshape(4, 3) % 5, jnp.zeros(4, bool)

    def loss(student):
        teacher = sd.sinkhorn_knopp(logits, 0.1, where=none)
        return sd.patch_cross_entropy(student, teacher.reshape(2, 2, 3), 0.1, none.reshape(2, 2))

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits.reshape(2, 2, 3))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


def test_sinkhorn_knopp_survives_sharp_temperatures():
    logits = jnp.array([[1.0, -1.0], [1.0, -0.999], [0.9, -1.0]])
    actual = sd.sinkhorn_knopp(logits, 1e-3)
    assert np.all(np.isfinite(actual))
    np.testing.assert_allclose(np.sum(actual, axis=1), 1.0, rtol=1e-5)


def test_koleo_is_the_log_distance_to_the_nearest():
    x = np.random.default_rng(0).normal(size=(7, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(unit[i] - unit[j]) for j in range(7) if j != i) for i in range(7)]
    np.testing.assert_allclose(jax.jit(sd.koleo)(*float32(x)), -np.mean(np.log(nearest)), rtol=1e-4)
    with jax.enable_x64(True):
        check_grads(jax.jit(sd.koleo), (jnp.asarray(x),), order=1, modes=["rev"])
    scaled = sd.koleo(*float32(x * np.arange(1, 8)[:, None]))
    np.testing.assert_allclose(scaled, -np.mean(np.log(nearest)), rtol=1e-4)


def test_koleo_of_equal_features_is_large_and_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(sd.koleo)(jnp.ones((4, 3)))
    assert 10 < value < 20
    assert np.all(np.isfinite(gradient))
    with pytest.raises(ValueError, match="at least 2 examples in the batch, not 1"):
        sd.koleo(jnp.ones((1, 3)))


def test_entropy_by_hand():
    p = jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(sd.entropy(p), [np.log(2), 0.0], atol=1e-7)


@pytest.mark.parametrize(("patches", "ratio"), [(16, (0.1, 0.5)), (4, (0.1, 0.2)), (10, (0.3, 0.3))])
def test_masks_have_their_probability_and_size(patches, ratio):
    mask, patch_numbers, valid = map(np.asarray, sd.random_masks(jax.random.key(0), 4000, patches, 0.5, ratio))
    counts = mask.sum(axis=1)
    np.testing.assert_array_equal(counts, valid.sum(axis=1))
    for i in range(50):
        assert set(patch_numbers[i][valid[i]]) == set(np.flatnonzero(mask[i]))
    masked = counts > 0
    assert abs(masked.mean() - 0.5) < 0.04  # 5 standard errors
    low, high = (max(int(r * patches), 1) for r in ratio)
    assert set(counts[masked]) <= set(range(low, high + 1))
    assert {low, max(high - 1, low)} <= set(counts[masked])
    np.testing.assert_allclose(mask.mean(axis=0), mask.mean(), atol=0.05)  # no place is preferred
