"""Everything that an objective keeps goes through a checkpoint: a resumed run ends in the bits of an unbroken one."""

import jax
import jax.numpy as jnp
import pytest
from etils import epath
from flax import nnx

from dnc.objectives.dino import Center
from dnc.objectives.teacher import Teacher
from dnc.training import loop
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints
from dnc.training.step import make_step
from tests.training import runs
from tests.training.runs import assert_same_bits, metrics, one_device, saved_state, stop_after_every_step

STEPS = 4


def config_of(name):
    config = runs.config_of(name)
    config.train.duration.steps = STEPS
    if config.model.name == "vit":
        optimizer = "muon" if name == "dino" else "adamw"
        config.optimizer = dict(name=optimizer, weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0)
    return config.lock()


def as_given(batch, _):
    return {"views": batch, "labels": {}}


@pytest.mark.parametrize("name", ["dino", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mae", "ijepa"))])
def test_a_resumed_state_ends_in_the_same_bits(name, tmp_path):
    training, mesh = build(config_of(name)), one_device()
    graphdef, like = training.abstract(mesh)
    step = make_step(graphdef, training.objective, training.optimizer, as_given, jax.random.key(0), STEPS)
    batches = jax.random.normal(jax.random.key(1), (STEPS, 2, 8, 16, 16, 3))
    state, seen = training.init(mesh), []
    checkpoints = Checkpoints(epath.Path(tmp_path))
    for number in range(STEPS):
        if number == 2:
            checkpoints.save(number, state, {})
        state, metrics = step(state, batches[number])
        seen.append(metrics)
    resumed = checkpoints.restore(like, 2).state
    checkpoints.close()

    network = nnx.merge(graphdef, resumed.params, resumed.rest, copy=True)
    assert bool(jax.tree.leaves(nnx.state(network, Teacher))) == (name != "mae")
    centers = jax.tree.leaves(nnx.state(network, Center))
    assert len(centers) == (2 if name == "dino" else 0)
    assert all(bool(jnp.any(center != 0)) for center in centers)
    if name != "mae":
        pairs = zip(
            jax.tree.leaves(nnx.state(network.encoder, Teacher)),
            jax.tree.leaves(nnx.state(network.student, nnx.Param)),
            strict=True,
        )
        assert any(bool(jnp.any(t != s)) for t, s in pairs)
    for number in range(2, STEPS):
        resumed, metrics = step(resumed, batches[number])
        assert_same_bits(metrics, seen[number])
    assert_same_bits(resumed, state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae", "ijepa", "dino", "clip", "siglip", "directional"])
def test_a_run_stopped_after_every_step_ends_as_an_unbroken_one(name, tmp_path):
    whole, stopped = (epath.Path(tmp_path) / folder for folder in ("whole", "stopped"))
    loop.train_and_evaluate(config_of(name), whole, one_device())
    stop_after_every_step(config_of(name), stopped)
    assert metrics(whole) == metrics(stopped)
    assert_same_bits(*(saved_state(run, config_of(name), STEPS) for run in (stopped, whole)))
