"""CLIP and SigLIP: PyTorch's losses, the learned scale and bias, what they look at."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.data import tokenizer
from dnc.objectives import CLIP, SigLIP, clip, siglip
from dnc.objectives.clip import MAX_SCALE, clipped_scale
from dnc.objectives.image_text import matching_metrics
from dnc.training.optimizers import weights_only
from tests.objectives.test_objectives import batch_of, network_of

clip_loss, siglip_loss = jax.jit(clip.clip_loss), jax.jit(siglip.siglip_loss)
LOG_SCALE, BIAS = jnp.log(12.0), jnp.array(-2.5)
NAMES = ["clip", "siglip"]


@pytest.mark.parametrize("b", [2, 7])
def test_collapsed_embeddings_by_hand(b):
    same = jnp.ones((b, 3))
    np.testing.assert_allclose(clip_loss(same, same, LOG_SCALE), math.log(b), rtol=1e-6)
    expected = math.log1p(math.exp(-9.5)) + (b - 1) * math.log1p(math.exp(9.5))
    np.testing.assert_allclose(siglip_loss(same, same, LOG_SCALE, BIAS), expected, rtol=1e-5)


def test_the_scale_stops_at_a_hundred_and_comes_back():
    limit = math.log(MAX_SCALE)
    np.testing.assert_allclose([clipped_scale(jnp.array(x)) for x in (1.0, limit, 9.0)], [math.e, 100, 100], rtol=1e-5)
    down, up = (jax.grad(lambda x, sign=sign: sign * clipped_scale(x)) for sign in (1.0, -1.0))
    np.testing.assert_allclose([down(jnp.array(1.0)), up(jnp.array(1.0))], [math.e, -math.e], rtol=1e-5)
    np.testing.assert_allclose(down(jnp.array(limit + 0.1)), 100, rtol=1e-4)  # descent lowers the parameter
    assert up(jnp.array(limit + 0.1)) == 0  # descent would raise it


def test_training_never_uses_a_scale_above_a_hundred():
    """Captions of their images reward every increase of the scale; captions of others, later, its decrease."""
    images = jnp.asarray(np.eye(4, dtype=np.float32)) + 1.0
    gradient = jax.jit(jax.grad(lambda log_scale, texts: clip.clip_loss(images, texts, log_scale)))

    def descend(log_scale, texts):
        for _ in range(40):
            log_scale -= 0.05 * jnp.sign(gradient(log_scale, texts))  # steps as long as Adam's
            assert float(clipped_scale(log_scale)) <= MAX_SCALE * (1 + 1e-6)
        return log_scale

    high = descend(jnp.array(math.log(50.0)), images)
    assert math.log(MAX_SCALE) <= high <= math.log(MAX_SCALE) + 0.06
    assert descend(high, jnp.roll(images, 1, axis=0)) < math.log(50)


def loss_of(name, wanted=lambda loss, metrics: loss):
    """The objective's loss, or what is wanted of its metrics, as a function of the batch."""
    objective, network = network_of(name)
    graphdef, state = nnx.split(network)
    key = jax.random.key(0)
    return jax.jit(lambda batch: wanted(*objective.loss(nnx.merge(graphdef, state, copy=True), batch, key)))


def test_scale_and_bias_start_as_published_and_do_not_decay():
    scale = loss_of("clip", lambda loss, metrics: metrics["logit_scale"])(batch_of(4))
    np.testing.assert_allclose(scale, 1 / 0.07, rtol=1e-6)
    of_siglip = loss_of("siglip", lambda loss, metrics: (metrics["logit_scale"], metrics["logit_bias"]))
    for size in (4, 16):
        log_odds = math.log(1 / size / (1 - 1 / size))  # that an image and a caption of the batch match
        np.testing.assert_allclose(of_siglip(batch_of(size)), [10.0, log_odds], rtol=1e-6)
    np.testing.assert_allclose(-math.log(22_027 - 1), -10, rtol=1e-5)  # the paper's bias
    decays = weights_only(nnx.state(network_of("siglip")[1], nnx.Param))
    assert not decays["log_scale"].get_value()
    assert not decays["bias"].get_value()
    assert decays["text"]["embedding"].get_value()


def test_the_bias_for_the_batch_avoids_the_start_that_is_dominated_by_negatives():
    images, texts = (jax.random.normal(jax.random.key(seed), (64, 32)) for seed in (5, 9))
    zero = siglip_loss(images, texts, jnp.log(1.0), jnp.array(0.0))
    ours = siglip_loss(images, texts, jnp.log(1.0), jnp.array(-math.log(63)))
    assert ours < 1 + math.log(64) + 0.2
    assert zero > 40


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_the_second_view_are_not_looked_at(name):
    loss, batch = loss_of(name), batch_of(4)
    expected = loss(batch)
    assert (
        loss({**batch, "views": batch["views"].at[1].set(0.0), "labels": {"color": jnp.ones(4, jnp.int32)}}) == expected
    )
    assert loss({**batch, "tokens": jnp.roll(batch["tokens"], 1, axis=0)}) != expected


def test_metrics_by_hand():
    images = jnp.asarray([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])  # the first and the third have equal captions
    metrics = matching_metrics(images, images)
    np.testing.assert_allclose(metrics["matching_accuracy"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["positive_similarity"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["negative_similarity"], 2 / 6, rtol=1e-6)


@pytest.mark.parametrize("objective", [CLIP, SigLIP])
def test_defaults_are_those_of_the_tokenizer(objective):
    assert objective().vocabulary == tokenizer.VOCABULARY
    assert objective().context_length == tokenizer.CONTEXT_LENGTH


def test_a_batch_without_captions_is_refused():
    objective, network = network_of("clip")
    with pytest.raises(ValueError, match=r"no captions \(tokens\): set data.captions"):
        objective.loss(network, {"views": batch_of(4)["views"], "labels": {}}, jax.random.key(0))
