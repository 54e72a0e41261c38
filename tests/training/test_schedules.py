"""Warm-up then cosine, and durations in three units."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dnc.training.schedules import steps_in, warmup_cosine


def test_values_by_hand():
    schedule = warmup_cosine(0.4, warmup_steps=10, total_steps=110, end_fraction=0.1)
    steps = jnp.asarray([0, 5, 10, 60, 110, 1000])
    np.testing.assert_allclose(jax.vmap(schedule)(steps), [0.0, 0.2, 0.4, 0.22, 0.04, 0.04], rtol=1e-5)


def test_agrees_with_optax():
    ours = warmup_cosine(0.3, 7, 50, 0.01)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.3, 7, 50, end_value=0.003)
    steps = range(0, 60, 3)
    np.testing.assert_allclose([ours(t) for t in steps], [theirs(t) for t in steps], rtol=1e-5, atol=1e-8)


def test_python_and_traced_steps_agree_and_late_steps_do_not_overflow():
    assert warmup_cosine(0.4, 0, 10)(0) == np.float32(0.4)  # without warm-up, the peak
    schedule = warmup_cosine(1.0, 1_000_000, 2_000_000_000)
    assert schedule(0).dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(1_000_000_000)), schedule(1_000_000_000), rtol=1e-6)
    np.testing.assert_allclose(schedule(1_000_500_000), 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 10, 10), "warmup_steps=10 .* total_steps=10"),
        ((1.0, -1, 10), "warmup_steps=-1"),
        ((1.0, 1, 10, 1.5), "end_fraction=1.5"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine(*arguments)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ({"steps": 7}, 7),
        ({"steps": 0}, 0),
        ({"steps": 7, "epochs": None, "examples": None}, 7),
        ({"epochs": 2}, 6),
        ({"epochs": 0.5}, 2),
        ({"examples": 64}, 2),
        ({"examples": 65}, 3),
    ],
)
def test_units(duration, steps):
    assert steps_in(duration, batch_size=32, examples_per_epoch=100) == steps


@pytest.mark.parametrize("steps_per_epoch", [10, 30, 70, 110, 390, 1230])
def test_fractions_of_an_epoch_are_not_rounded_up_by_floating_point(steps_per_epoch):
    for tenths in range(30):
        assert steps_in({"epochs": tenths * 0.1}, 8, 8 * steps_per_epoch) == tenths * steps_per_epoch // 10


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        ({}, "exactly one of .* not 0"),
        ({"steps": None}, "exactly one of .* not 0"),
        ({"steps": 1, "epochs": 1}, "exactly one of .* not 2"),
        ({"epoch": 1}, "unit='epoch' is not known: did you mean 'epochs'"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"epochs": -1}, "not negative"),
        ({"epochs": float("nan")}, "finite"),
    ],
)
def test_bad_durations_are_named(duration, message):
    with pytest.raises(ValueError, match=message):
        steps_in(duration, batch_size=32, examples_per_epoch=100)


def test_an_epoch_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size=32 is larger than examples_per_epoch=10"):
        steps_in({"epochs": 1}, batch_size=32, examples_per_epoch=10)
    with pytest.raises(ValueError, match="batch_size=0"):
        steps_in({"examples": 1}, batch_size=0, examples_per_epoch=10)
