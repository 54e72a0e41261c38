"""The online probe watches and does not touch: parameters with and without it are equal bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from dnc.objectives import OBJECTIVES, OnlineProbe
from dnc.objectives.online_probe import Tap
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import warmup_cosine
from dnc.training.state import TrainState
from dnc.training.step import make_step
from tests.objectives.test_objectives import SETTINGS, TinyEncoder, batch_of, encoder_of
from tests.samples import rngs

CLASSES = {"color": 4, "shape": 2}
OPTIMIZERS = {
    "adamw, clipped": dict(name="adamw", weight_decay=0.1, clip_norm=0.01),
    "lars": dict(name="lars", weight_decay=1e-4, trust_coefficient=0.02, clip=True),
}


def labeled(size=8):
    batch = batch_of(size)
    return {**batch, "labels": {"color": jnp.arange(size) % 4, "shape": jnp.arange(size) % 2}}


def objective_of(name, online, learning_rate=1e-2):
    objective = OBJECTIVES[name](**SETTINGS[name])
    return OnlineProbe(objective, CLASSES, learning_rate) if online else objective


def network_of(objective, name="simclr"):
    return objective.network(encoder_of(name, jnp.float32, init := rngs()), rngs=init)


@functools.cache
def trained(name, optimizer, online, accumulate=1, steps=4):
    objective = objective_of(name, online)
    optimizer = make_optimizer(learning_rate=warmup_cosine(0.1, 1, 20), **OPTIMIZERS[optimizer])
    graphdef, state = TrainState.create(network_of(objective, name), optimizer)
    step = make_step(graphdef, objective, optimizer, lambda batch, _: batch, jax.random.key(0), steps, accumulate)
    seen = []
    for _ in range(steps):
        state, metrics = step(state, labeled())
        seen.append(jax.device_get(metrics))
    return graphdef, state, seen


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("simclr", "adamw, clipped"),
        ("vicreg", "lars"),
        pytest.param("ijepa", "adamw, clipped", marks=pytest.mark.slow),
        pytest.param("dino", "adamw, clipped", marks=pytest.mark.slow),
    ],
)
def test_the_trajectory_is_that_without_a_probe_bit_for_bit(name, optimizer):
    graphdef, state, seen = trained(name, optimizer, online=True)
    plain_graphdef, plain_state, plain_seen = trained(name, optimizer, online=False)
    watched, plain = nnx.merge(graphdef, state.params, state.rest), nnx.merge(plain_graphdef, *plain_state[1:3])
    one, other = (jax.tree.leaves(nnx.state(network)) for network in (watched.network, plain))
    assert len(one) > len(jax.tree.leaves(plain_state.params))  # running statistics, teachers and centers too
    moments = (jax.tree.leaves(state.opt_state) for state in (state, plain_state))  # the optimizer's, of no classifier
    for actual, expected in (*zip(one, other, strict=True), *zip(*moments, strict=True)):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in zip(seen, plain_seen, strict=True):
        assert {metric: actual[metric] for metric in expected} == expected  # norms and loss too
        assert set(actual) - set(expected) == {f"online_train_accuracy_{task}" for task in CLASSES}
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(nnx.state(watched.classifiers)))


def test_accumulated_parts_are_learned_from_one_after_the_other():
    graphdef, state, seen = trained("supervised", "adamw, clipped", online=True, accumulate=2)
    plain = trained("supervised", "adamw, clipped", online=False, accumulate=2)[1]
    for actual, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert nnx.merge(graphdef, state.params, state.rest).optimizer.step[...] == 8
    assert all(0 <= one["online_train_accuracy_color"] <= 1 for one in seen)


def test_a_step_of_the_classifiers_is_adam_on_the_first_views_cross_entropy():
    objective = objective_of("simclr", online=True)
    network, batch = network_of(objective), labeled()
    reference = TinyEncoder(jnp.float32, rngs())
    views = batch["views"].swapaxes(0, 1).reshape(16, 8, 8, 3)
    features = reference(views, train=True).reshape(8, 2, -1)[:, 0]
    metrics = nnx.jit(lambda network: objective.loss(network, batch, jax.random.key(0))[1])(network)

    def cross_entropy(weights):
        scores = jnp.dot(features, weights[0], precision="highest") + weights[1][None, :]
        return optax.softmax_cross_entropy_with_integer_labels(scores, batch["labels"]["color"]).mean()

    weights = jnp.zeros((8, 4)), jnp.zeros(4)
    gradients, adam = jax.grad(cross_entropy)(weights), optax.adam(1e-2)
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = adam.update(gradients, adam.init(weights))
    np.testing.assert_allclose(network.classifiers.weights["color"][...], expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(network.classifiers.biases["color"][...], expected[1], rtol=1e-4, atol=1e-6)
    assert metrics["online_train_accuracy_color"] == 0.25  # before the step all scores are 0: class 0
    assert metrics["online_train_accuracy_shape"] == 0.5
    assert not jax.tree.leaves(nnx.state(network, nnx.Intermediate))


def test_the_classifiers_learn():
    """Features that hold the label: after some steps the batch is classified rightly."""
    objective = objective_of("simclr", online=True, learning_rate=0.3)
    network, batch = network_of(objective), labeled()
    batch["views"] = 0.1 * batch["views"] + batch["labels"]["shape"].astype(jnp.float32)[None, :, None, None, None]
    step = nnx.jit(lambda network: objective.loss(network, batch, jax.random.key(0))[1])
    accuracies = [float(step(network)["online_train_accuracy_shape"]) for _ in range(20)]
    assert accuracies[0] == 0.5
    assert accuracies[-1] == 1


def test_the_tap_keeps_the_first_training_pass_alone():
    encoder = TinyEncoder(jnp.float32, nnx.Rngs(0))
    tap, images = Tap(encoder), batch_of(4)["views"]
    assert (tap.features, tap.dtype) == (encoder.features, encoder.dtype)
    tap(images[0], train=False)
    first = tap(images[0], train=True)
    tap(images[1], train=True)
    np.testing.assert_array_equal(tap.take(), first)
    assert not jax.tree.leaves(nnx.state(tap, nnx.Intermediate))


def test_a_learning_rate_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="learning_rate=0"):
        objective_of("simclr", online=True, learning_rate=0.0)


def test_a_masked_autoencoder_cannot_be_watched():
    with pytest.raises(ValueError, match=r"MAE never encodes a whole image in training: set config.probe.online=False"):
        objective_of("mae", online=True)


@pytest.mark.parametrize(
    ("labels", "message"), [({}, "have none: set it to False"), ({"color": 0}, r"none of \['shape'\]")]
)
def test_images_without_labels_are_refused(labels, message):
    with pytest.raises(
        ValueError, match=rf"probe\.online=True learns from labels, and the training images .*{message}"
    ):
        objective_of("simclr", online=True).check({**labeled(), "labels": labels})


def test_the_watched_objective_is_checked_too():
    with pytest.raises(ValueError, match="no captions"):
        objective_of("clip", online=True).check({key: value for key, value in labeled().items() if key != "tokens"})
