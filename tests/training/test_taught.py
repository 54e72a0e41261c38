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
from tests.training import tiny
from tests.training.runs import assert_same_bits, metrics, one_device, saved_state

STEPS = 4
OBJECTIVES = {
    "mae": dict(decoder_width=16, decoder_depth=1, decoder_heads=2),
    "ijepa": dict(targets=2, predictor_width=16, predictor_depth=1, predictor_heads=2),
    "dino": dict(prototypes=32, hidden=16, bottleneck=8, freeze_last_layer=0.3, ibot_weight=1.0, koleo_weight=0.1),
}


SMALL_TEXT = dict(features=16, text_width=16, text_depth=1, text_heads=2)
WITHOUT_VIT = {"clip": SMALL_TEXT, "siglip": SMALL_TEXT, "directional": dict(widths=(16, 16))}


def config_of(name):
    config = tiny.get_config().unlock()
    config.train.duration.steps = STEPS
    config.objective = (OBJECTIVES | WITHOUT_VIT)[name] | {"name": name}
    config.data.captions = name in ("clip", "siglip")
    if name in WITHOUT_VIT:
        return config.lock()
    config.model = dict(
        name="vit", image_size=16, patch_size=4, width=16, depth=1, heads=2, dtype="float32", remat=False
    )
    if name == "dino":
        config.model.mask_token = True
    if name == "ijepa":
        config.model.update(class_token=False, pool="mean")
    config.optimizer = dict(name="adamw", weight_decay=0.04, weight_decay_end=0.4, clip_norm=3.0)
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
@pytest.mark.parametrize("name", OBJECTIVES | WITHOUT_VIT)
def test_a_run_stopped_after_every_step_ends_as_an_unbroken_one(name, tmp_path):
    whole, stopped = (epath.Path(tmp_path) / folder for folder in ("whole", "stopped"))
    loop.train_and_evaluate(config_of(name), whole, one_device())
    plan = loop.prepare(config_of(name), stopped, one_device())
    for _ in range(3):
        assert not loop.run(plan, stopped, one_device(), stop_after=0.0)
    assert loop.run(plan, stopped, one_device())
    assert metrics(whole) == metrics(stopped)
    assert_same_bits(*(saved_state(run, config_of(name), STEPS) for run in (stopped, whole)))
