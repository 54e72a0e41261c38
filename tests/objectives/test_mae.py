"""MAE: targets and loss against NumPy, what is hidden and what is seen, where gradients come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models import Tokens, ViT
from dnc.objectives import MAE, mae
from tests.objectives.test_objectives import batch_of, network_of

PATCHES, VISIBLE = 16, 4


def pixels_of_patches(images, size):
    """[b, n, p] by loops: patches row by row, in each the pixels row by row, in each the channels."""
    b, h, w, _ = images.shape
    return np.array(
        [
            [images[i, y : y + size, x : x + size].ravel() for y in range(0, h, size) for x in range(0, w, size)]
            for i in range(b)
        ]
    )


def test_targets_are_pixels_normalized_with_the_unbiased_variance_of_their_patch():
    images = np.random.default_rng(0).normal(3.0, 2.0, (2, 8, 4, 3))
    images[0, :4, :4] = 1.0  # a flat patch, where the 1e-6 counts
    expected = pixels_of_patches(images, 4)
    given = jnp.asarray(images, jnp.float32)
    np.testing.assert_array_equal(mae.patch_targets(given, 4, normalize=False), np.float32(expected))
    mean, variance = expected.mean(-1, keepdims=True), expected.var(-1, keepdims=True, ddof=1)
    expected = (expected - mean) / np.sqrt(variance + 1e-6)
    np.testing.assert_allclose(mae.patch_targets(given, 4), expected, rtol=1e-4, atol=1e-5)
    assert np.all(expected[0, 0] == 0)  # so is ours, without a nan


def test_bfloat16_predictions_are_compared_in_float32():
    predicted = jnp.full((1, 2, 3), 1.0039, jnp.bfloat16)
    loss = mae.reconstruction_loss(predicted, jnp.full((1, 2, 3), 1.001, jnp.float32), jnp.array([[True, False]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, (float(predicted[0, 0, 0]) - 1.001) ** 2, rtol=1e-3)


def test_orders_are_permutations_that_differ_between_examples():
    order = np.asarray(mae.random_order(jax.random.key(0), 64, PATCHES))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(PATCHES), (64, 1)))
    assert len({tuple(row) for row in order.tolist()}) == 64
    seen_first = np.bincount(np.asarray(mae.random_order(jax.random.key(1), 4096, PATCHES))[:, :VISIBLE].ravel())
    np.testing.assert_allclose(seen_first / 4096, VISIBLE / PATCHES, atol=0.04)  # 6 standard errors


def predictions(network, images, order):
    tokens = network.encoder.tokens(images, keep=order[:, :VISIBLE])
    return network.decoder(tokens, jnp.argsort(order, axis=1), (4, 4))


def test_the_loss_is_that_of_its_parts():
    """The objective end to end: order, visible tokens, decoder, loss, assembled here patch by patch."""
    objective, network = network_of("mae")
    batch, key = batch_of(3), jax.random.key(5)
    actual, metrics = nnx.jit(objective.loss)(network, batch, key)
    images = batch["views"][0]
    order = np.asarray(mae.random_order(jax.random.split(key)[0], 3, PATCHES))
    predicted = np.asarray(jax.jit(lambda *given: predictions(network, *given))(images, jnp.asarray(order)))
    pixels = pixels_of_patches(np.asarray(images, np.float64), 2)
    pixels = (pixels - pixels.mean(-1, keepdims=True)) / np.sqrt(pixels.var(-1, keepdims=True, ddof=1) + 1e-6)
    errors = [np.mean((predicted[i, j] - pixels[i, j]) ** 2) for i in range(3) for j in order[i, VISIBLE:]]
    assert len(errors) == 3 * 12
    np.testing.assert_allclose(actual, np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(metrics["prediction_std"], predicted.std(-1).mean(), rtol=1e-5)


def test_the_decoder_puts_each_visible_token_at_its_place():
    """With blocks that do nothing, a patch's prediction is a function of its own token and position alone."""
    decoder = network_of("mae")[1].decoder
    decoder.blocks = nnx.List([])
    nothing = jnp.zeros((1, 0, 16))  # registers
    decode = nnx.jit(lambda visible, place: decoder(Tokens(None, nothing, visible), place, (2, 2)))
    order = jnp.asarray([[2, 0, 3, 1]])
    visible = jax.random.normal(jax.random.key(0), (1, 2, 16))
    out = decode(visible, jnp.argsort(order, axis=1))
    swapped = decode(visible[:, ::-1], jnp.argsort(jnp.asarray([[0, 2, 3, 1]]), axis=1))
    np.testing.assert_allclose(out, swapped, rtol=1e-6)
    other = decode(visible.at[:, 0].add(1.0), jnp.argsort(order, axis=1))
    np.testing.assert_array_equal(np.any(np.asarray(out != other), axis=(0, 2)), [False, False, True, False])


def test_hidden_pixels_reach_the_loss_as_targets_alone():
    """Without their part in the target, hidden pixels change nothing; visible ones do."""
    network = network_of("mae")[1]
    key, images = jax.random.key(5), batch_of(2)["views"][0]
    order = mae.random_order(jax.random.split(key)[0], 2, PATCHES)

    reached = jax.jit(jax.grad(lambda images: jnp.sum(predictions(network, images, order) ** 2)))(images)
    reached = pixels_of_patches(np.asarray(reached), 2)
    seen = np.any(reached != 0, axis=-1)
    np.testing.assert_array_equal(seen, np.argsort(np.asarray(order), axis=1) < VISIBLE)


def test_evaluation_reads_the_unmasked_encoder():
    network = network_of("mae")[1]
    images = batch_of(2)["views"][0]
    encode = nnx.jit(lambda images: network.encoder(images, train=False))
    features = encode(images)
    changed = [encode(images.at[:, y, x].add(1.0)) for y, x in ((0, 0), (5, 3), (7, 7))]
    assert all(np.all(np.any(np.asarray(one != features), axis=1)) for one in changed)


def test_too_few_patches_are_refused():
    objective = MAE(decoder_width=16, decoder_depth=1, decoder_heads=2)
    network = objective.network(ViT(4, 4, 16, 1, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="leaves none of 1 patches visible"):
        objective.loss(network, {"views": jnp.zeros((1, 2, 4, 4, 3)), "labels": {}}, jax.random.key(0))
