"""NT-Xent and its decoupled form: hand-computed values, a float64 loop, gradients, invariants."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dnc.objectives import simclr
from dnc.objectives.simclr import SimCLR, contrastive_metrics

nt_xent = jax.jit(simclr.nt_xent)
decoupled_nt_xent = jax.jit(simclr.decoupled_nt_xent)
LOSSES = {"nt_xent": nt_xent, "decoupled_nt_xent": decoupled_nt_xent}


def reference(first, second, temperature, decoupled):
    """The definition, anchor by anchor, in float64."""
    z = [np.asarray(x, np.float64) for x in (*first, *second)]
    z = [x / np.sqrt(np.sum(x * x)) for x in z]
    b, total = len(first), 0.0
    for i in range(2 * b):
        partner = (i + b) % (2 * b)
        denominator = 0.0
        for j in range(2 * b):
            if j == i or (decoupled and j == partner):
                continue
            denominator += math.exp(float(z[i] @ z[j]) / temperature)
        total += -float(z[i] @ z[partner]) / temperature + math.log(denominator)
    return total / (2 * b)


def embeddings(b=6, p=5, seed=0):
    first = jax.random.normal(jax.random.key(seed), (b, p))
    return first, first + 0.5 * jax.random.normal(jax.random.key(seed + 1), (b, p))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_matches_the_float64_loop(name, temperature):
    first, second = embeddings()
    expected = reference(first, second, temperature, decoupled=name == "decoupled_nt_xent")
    np.testing.assert_allclose(LOSSES[name](first, second, temperature), expected, rtol=2e-6)
    with jax.enable_x64(True):
        exact = LOSSES[name](
            jnp.asarray(np.asarray(first), "float64"), jnp.asarray(np.asarray(second), "float64"), temperature
        )
        np.testing.assert_allclose(exact, expected, rtol=1e-12)


def test_two_orthogonal_examples_by_hand():
    # Each anchor: positive cosine 1, two negatives of cosine 0; T = 1/2.
    views = jnp.asarray([[3.0, 0.0], [0.0, 0.2]])
    np.testing.assert_allclose(nt_xent(views, views, 0.5), math.log(math.e**2 + 2) - 2, rtol=1e-6)
    np.testing.assert_allclose(decoupled_nt_xent(views, views, 0.5), math.log(2) - 2, rtol=1e-6)


def test_opposite_views_by_hand():
    # Positive cosine -1; of the negatives one is the anchor's own direction (cosine 1), one its opposite (-1).
    first, second = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), jnp.asarray([[-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(nt_xent(first, second, 1.0), 1 + math.log(2 / math.e + math.e), rtol=1e-6)
    np.testing.assert_allclose(decoupled_nt_xent(first, second, 1.0), 1 + math.log(1 / math.e + math.e), rtol=1e-6)


@pytest.mark.parametrize("b", [2, 5, 32])
def test_collapsed_embeddings_give_the_log_of_the_number_of_candidates(b):
    same = jnp.ones((b, 4))
    np.testing.assert_allclose(nt_xent(same, same, 0.1), math.log(2 * b - 1), rtol=1e-5)
    np.testing.assert_allclose(decoupled_nt_xent(same, same, 0.1), math.log(2 * b - 2), rtol=1e-5)


def test_decoupling_removes_exactly_the_positive_from_the_denominator():
    first, second = embeddings()
    gap = float(nt_xent(first, second, 0.2) - decoupled_nt_xent(first, second, 0.2))
    assert gap > 0
    with_positive, without = (reference(first, second, 0.2, decoupled) for decoupled in (False, True))
    np.testing.assert_allclose(gap, with_positive - without, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_match_finite_differences(name):
    with jax.enable_x64(True):
        first, second = (jnp.asarray(np.asarray(x), "float64") for x in embeddings(b=3, p=3))
        check_grads(lambda a, b: LOSSES[name](a, b, 0.5), (first, second), order=1, modes=["fwd", "rev"])


@pytest.mark.parametrize("name", LOSSES)
def test_swapping_views_permuting_examples_and_scaling_rows_change_nothing(name):
    loss = LOSSES[name]
    first, second = embeddings()
    expected = loss(first, second, 0.2)
    order = np.random.default_rng(0).permutation(len(first))
    np.testing.assert_allclose(loss(second, first, 0.2), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(first[order], second[order], 0.2), expected, rtol=1e-6)
    scale = jnp.exp(jnp.linspace(-8.0, 8.0, len(first)))[:, None]
    np.testing.assert_allclose(loss(first * scale, second / scale, 0.2), expected, rtol=1e-5)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0].astype("float32")
    np.testing.assert_allclose(loss(first @ rotation, second @ rotation, 0.2), expected, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_negatives_are_the_whole_batch_not_its_halves(name):
    first, second = embeddings(b=8)
    whole = LOSSES[name](first, second, 0.2)
    halves = (LOSSES[name](first[:4], second[:4], 0.2) + LOSSES[name](first[4:], second[4:], 0.2)) / 2
    assert whole > halves + 0.3


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_embeddings_are_contrasted_in_float32(name):
    first, second = (x.astype(jnp.bfloat16) for x in embeddings())
    loss = LOSSES[name](first, second, 0.05)
    assert loss.dtype == jnp.float32
    expected = reference(first.astype(jnp.float32), second.astype(jnp.float32), 0.05, name == "decoupled_nt_xent")
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_zero_embedding_has_finite_loss_and_gradient(name):
    first, second = embeddings()
    first = first.at[0].set(0.0)
    value, gradient = jax.value_and_grad(LOSSES[name])(first, second, 0.2)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_temperature_stays_finite(name):
    first, second = embeddings()
    value, gradient = jax.value_and_grad(LOSSES[name])(first, second, 1e-3)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_one_example_has_no_negatives():
    first, second = embeddings(b=1)
    with pytest.raises(ValueError, match="at least 2 examples in the batch, not 1"):
        nt_xent(first, second, 0.2)


def test_metrics_by_hand():
    views = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    metrics = contrastive_metrics(views, views)
    assert metrics["contrastive_accuracy"] == 1
    np.testing.assert_allclose(metrics["positive_similarity"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["negative_similarity"], 0.0, atol=1e-6)
    np.testing.assert_allclose(metrics["embedding_std"], 0.5 * math.sqrt(2), rtol=1e-6)
    assert contrastive_metrics(views, -views)["contrastive_accuracy"] == 0


def test_accuracy_is_chance_for_unrelated_views():
    first, second = (jax.random.normal(jax.random.key(i), (64, 16)) for i in range(2))
    assert contrastive_metrics(first, second)["contrastive_accuracy"] < 0.1
    np.testing.assert_allclose(contrastive_metrics(first, second)["embedding_std"], 1.0, atol=0.02)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature=0"):
        SimCLR(temperature=0.0)
