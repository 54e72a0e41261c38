"""DINO: the loss end to end against NumPy, the center, the frozen layer, multi-crop, what the teacher is spared."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models import ViT
from dnc.objectives import DINO
from dnc.objectives.base import side_by_side
from dnc.objectives.dino import Center
from dnc.objectives.self_distillation import random_masks
from tests.objectives.test_objectives import TINY_VIT, batch_of, functional_gradient
from tests.objectives.test_self_distillation import log_softmax, sinkhorn_by_the_book
from tests.samples import rngs

SIZES = {"prototypes": 12, "hidden": 16, "bottleneck": 8}
WARMING = {"teacher_temperature": (0.04, 0.08), "temperature_warmup": 1.0}
ADDITIONS = {"ibot_weight": 0.7, "koleo_weight": 0.2, "mask_probability": 1.0}  # every image has masked patches


@functools.cache
def _made(**settings):
    """Few different settings make the tests quick: each is a program to compile."""
    objective, init = DINO(**SIZES, **settings), rngs()
    network = objective.network(ViT(**TINY_VIT, mask_token=True, rngs=init), rngs=init)
    student = nnx.state((network.student, network.student_head), nnx.Param)  # as after some steps
    rng = np.random.default_rng(1)
    moved = jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), student)
    nnx.update((network.student, network.student_head), moved)
    return objective, nnx.split(network)


def made(**settings):
    objective, parts = _made(**WARMING | settings)
    return objective, nnx.merge(*parts, copy=True)


def multi_crop(progress=0.5):
    local = jax.random.normal(jax.random.key(8), (3, 4, 4, 4, 3))
    return {**batch_of(4), "local_views": local, "progress": jnp.float32(progress)}


@functools.partial(jax.jit, static_argnums=0)
def functional(objective, graphdef, *arrays):
    return functional_gradient(objective, graphdef, key=3)(*arrays)


def run(objective, network, batch):
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    ((value, (metrics, rest)), gradients) = functional(objective, graphdef, params, rest, batch)
    return value, metrics, nnx.merge(graphdef, params, rest), gradients


@jax.jit
def cosines(parts, views):
    encoder, head = nnx.merge(*parts)
    return jnp.stack([head(encoder(view, train=False)) for view in views])


@pytest.mark.parametrize("centering", ["mean", "sinkhorn"])
def test_the_loss_with_local_views_is_that_of_all_pairs(centering):
    objective, network = made(centering=centering)
    center = np.linspace(-0.5, 0.5, 12)
    if centering == "mean":
        network.centers[0][...] = jnp.asarray(center, jnp.float32)
    batch = multi_crop()
    value, metrics, after, _ = run(objective, network, batch)
    assert len(jax.tree.leaves(nnx.state(network, Center))) == (centering == "mean")

    teacher_logits = np.asarray(cosines(nnx.split((after.encoder, after.teacher_head)), batch["views"]), np.float64)
    parts = nnx.split((network.student, network.student_head))
    student = [*cosines(parts, batch["views"]), *cosines(parts, batch["local_views"])]
    temperature = 0.06  # half way from 0.04 to 0.08
    if centering == "mean":
        teacher = np.exp(log_softmax((teacher_logits - center) / temperature))
        moved = 0.9 * center + 0.1 * teacher_logits.mean(axis=(0, 1))  # after the loss has used it
        np.testing.assert_allclose(after.centers[0][...], moved, rtol=1e-4, atol=1e-6)
    else:
        teacher = sinkhorn_by_the_book(teacher_logits.reshape(8, 12), temperature, 3).reshape(2, 4, 12)
    terms = [
        -np.mean(np.sum(teacher[i] * log_softmax(np.asarray(student[j]) / 0.1), axis=-1))
        for i in range(2)
        for j in range(5)
        if i != j
    ]
    assert len(terms) == 8
    np.testing.assert_allclose(value, np.mean(terms), rtol=1e-4)
    np.testing.assert_array_equal(value, metrics["dino"])
    assert not {"ibot", "koleo"} & set(metrics)
    entropies = -np.sum(teacher * np.log(teacher), axis=-1)
    np.testing.assert_allclose(metrics["teacher_entropy"], entropies.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["teacher_kl"], np.mean(terms) - entropies.mean(), rtol=1e-3)
    mean = teacher.mean(axis=(0, 1))
    np.testing.assert_allclose(metrics["prototype_entropy"], -np.sum(mean * np.log(mean)), rtol=1e-4)


def test_masked_patches_and_spread_are_added_with_their_weights():
    value, metrics, *_ = run(*made(**ADDITIONS), multi_crop())
    np.testing.assert_allclose(value, metrics["dino"] + 0.7 * metrics["ibot"] + 0.2 * metrics["koleo"], rtol=1e-5)
    assert metrics["ibot"] > 0.1
    assert abs(metrics["koleo"]) > 0.1


def test_the_patch_loss_compares_what_the_teacher_sees_with_what_the_student_does_not():
    """All images masked: the loss is made of the masked patches alone, of tokens made here."""
    objective, network = made(**ADDITIONS)
    batch = multi_crop(progress=0.0)
    _, metrics, after, _ = run(objective, network, batch)
    masks = random_masks(jax.random.split(jax.random.key(3), 3)[0], 8, 16, 1.0, (0.1, 0.5))
    images = side_by_side(batch["views"])

    @jax.jit
    def logits(parts, mask):
        encoder, head = nnx.merge(*parts)
        patches = encoder.tokens(images, mask=mask).patches
        return head(patches.reshape(-1, 16)).reshape(8, 16, 12)

    teacher = np.asarray(logits(nnx.split((after.encoder, after.teacher_head)), None))
    student = np.asarray(logits(nnx.split((network.student, network.student_head)), masks.mask))
    losses = -np.sum(np.exp(log_softmax(teacher / 0.04)) * log_softmax(student / 0.1), axis=-1)
    mask = np.asarray(masks.mask)
    expected = np.mean([losses[i][mask[i]].mean() for i in range(8)])
    np.testing.assert_allclose(metrics["ibot"], expected, rtol=1e-4)
    np.testing.assert_allclose(after.centers[1][...], 0.1 * teacher[mask].mean(axis=0), rtol=1e-3, atol=1e-6)


def test_prototypes_stand_still_while_frozen_and_the_rest_learns():
    objective, network = made()
    assert objective.freeze_last_layer == 0.01
    for progress, moves in ((0.0, False), (0.0099, False), (0.01, True), (0.5, True)):
        *_, gradients = run(objective, network, multi_crop(progress=progress))
        assert bool(jnp.any(gradients["student_head"]["prototypes"][...] != 0)) == moves
        assert bool(jnp.any(gradients["student_head"]["layers"][0]["kernel"][...] != 0))


def test_the_teacher_has_no_gradient_and_the_student_has():
    *_, gradients = run(*made(), multi_crop())
    assert set(gradients) == {"student", "student_head"}
    norms = {
        jax.tree_util.keystr(path): float(jnp.linalg.norm(g.ravel()))
        for path, g in jax.tree.leaves_with_path(gradients)
    }
    assert [name for name, norm in norms.items() if norm == 0] == ["['student']['mask_token'].value"]


def test_a_collapsed_teacher_shows_in_the_metrics():
    objective, network = made()
    same = {**multi_crop(), "views": jnp.ones((2, 4, 8, 8, 3))}
    _, metrics, *_ = run(objective, network, same)
    np.testing.assert_allclose(metrics["prototype_entropy"], metrics["teacher_entropy"], rtol=1e-5)  # all the same
    network.centers[0][...] = jnp.zeros(12).at[3].set(-100.0)
    _, metrics, *_ = run(objective, network, multi_crop())
    assert metrics["prototype_entropy"] < 1e-6  # all on one
    for head in (network.teacher_head, network.student_head):
        head.layers[2].kernel[...] *= 0.0
        head.layers[2].bias[...] *= 0.0
    network.centers[0][...] = jnp.zeros(12)
    _, metrics, *_ = run(objective, network, multi_crop())
    np.testing.assert_allclose(metrics["teacher_entropy"], np.log(12), rtol=1e-5)  # uniform


def test_masking_needs_a_mask_token():
    vit = ViT(**TINY_VIT, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"ibot_weight=1.0 masks patches: set config.model.mask_token=True"):
        DINO(**SIZES, ibot_weight=1.0).network(vit, rngs=nnx.Rngs(0))
