"""The teacher follows by the formula, and nothing but the formula moves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models.heads import Projector
from dnc.objectives.teacher import Teacher, check_momentum, cosine, ema_update, linear, make_teacher
from dnc.training.optimizers import make_optimizer
from dnc.training.state import TrainState
from dnc.training.step import make_step
from tests.objectives.test_objectives import ENCODERS, batch_of, network_of
from tests.samples import rngs

TAUGHT = [name for name in sorted(ENCODERS) if name != "mae"]


def student():
    return Projector(5, (4, 3), norm=True, rngs=rngs())


def test_a_teacher_is_an_equal_copy_without_parameters():
    original = student()
    teacher = make_teacher(original)
    assert not jax.tree.leaves(nnx.state(teacher, nnx.Param))
    ours, theirs = jax.tree.leaves(nnx.state(teacher, Teacher)), jax.tree.leaves(nnx.state(original, nnx.Param))
    for t, s in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(t, s)
        assert t.unsafe_buffer_pointer() != s.unsafe_buffer_pointer()  # both are donated
    np.testing.assert_array_equal(teacher(jnp.ones((2, 5)), train=False), original(jnp.ones((2, 5)), train=False))


def test_following_is_the_formula():
    original, teacher = student(), make_teacher(student())
    before = [np.array(t, np.float64) for t in jax.tree.leaves(nnx.state(teacher, Teacher))]
    ema_update(teacher, original, jnp.float32(0.7))
    for t, b in zip(jax.tree.leaves(nnx.state(teacher, Teacher)), before, strict=True):
        np.testing.assert_array_equal(t, np.float32(b))  # equal ones stay, to the last bit
    moved = jax.tree.map(lambda p: p + 1.0, nnx.state(original, nnx.Param))
    nnx.update(original, moved)
    ema_update(teacher, original, jnp.float32(0.7))
    for t, b in zip(jax.tree.leaves(nnx.state(teacher, Teacher)), before, strict=True):
        np.testing.assert_allclose(t, 0.7 * b + 0.3 * (b + 1.0), rtol=1e-6, atol=1e-6)


def test_schedules_by_hand():
    progress = list(jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose([linear((0.996, 1.0), p) for p in progress], [0.996, 0.997, 0.998, 1.0], rtol=1e-6)
    expected = [0.996, 1 - 0.004 * (1 + np.sqrt(0.5)) / 2, 0.998, 1.0]
    np.testing.assert_allclose([cosine((0.996, 1.0), p) for p in progress], expected, rtol=1e-6)


@pytest.mark.parametrize("momentum", [(0.9, 1.1), (-0.1, 1.0)])
def test_momentum_is_a_share(momentum):
    with pytest.raises(ValueError, match="momentum="):
        check_momentum(momentum)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_taught_objective_needs_to_know_how_far_training_is(name):
    objective, network = network_of(name)
    batch = batch_of(2)
    del batch["progress"]
    with pytest.raises(ValueError, match=r"batch\['progress'\] is missing"):
        objective.loss(network, batch, jax.random.key(0))


@pytest.mark.parametrize("name", TAUGHT)
def test_in_training_the_teacher_trails_the_student_by_the_schedule_and_decay_does_not_touch_it(name):
    """Three steps of a strongly decaying optimizer: the teacher is the mean of students that the momenta say."""
    objective, network = network_of(name)
    optimizer = make_optimizer("adamw", 1e-2, weight_decay=10.0)
    graphdef, state = TrainState.create(network, optimizer)
    step = make_step(graphdef, objective, optimizer, lambda batch, _: dict(batch), jax.random.key(0), 10)
    students, teachers = [], []
    for _ in range(3):
        students.append(encoder_leaves(graphdef, state, "student", nnx.Param))
        state, metrics = step(state, {"views": batch_of(8)["views"], "labels": {}})
        teachers.append(encoder_leaves(graphdef, state, "encoder", Teacher))
    schedule = {"dino": cosine, "ijepa": linear}[name]
    expected = students[0]
    for number in range(3):
        m = float(schedule(objective.momentum, jnp.float32(number / 10)))
        expected = [m * t + (1 - m) * s for t, s in zip(expected, students[number], strict=True)]
        for t, e in zip(teachers[number], expected, strict=True):
            np.testing.assert_allclose(t, e, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["teacher_momentum"], m, rtol=1e-6)
    assert any(np.abs(t - s).max() > 1e-3 for t, s in zip(teachers[-1], students[-1], strict=True))


def encoder_leaves(graphdef, state, attribute, kind):
    network = nnx.merge(graphdef, state.params, state.rest, copy=True)
    return [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(getattr(network, attribute), kind))]


@pytest.mark.parametrize("name", TAUGHT)
def test_evaluation_reads_the_teacher(name):
    network = network_of(name)[1]
    images = batch_of(2)["views"][0]
    encode = nnx.jit(lambda network: network.encoder(images, train=False))
    before = encode(network)
    nnx.update(network.student, jax.tree.map(jnp.zeros_like, nnx.state(network.student, nnx.Param)))
    np.testing.assert_array_equal(encode(network), before)
    assert not jax.tree.leaves(nnx.state(network.encoder, nnx.Param))
