"""Models by name in a config: what is chosen, what is refused."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from ml_collections import ConfigDict

from dnc.models import ViT
from dnc.training.build import build, make_encoder
from tests.training import tiny
from tests.training.runs import one_device

VIT = dict(image_size=16, patch_size=4, dtype="bfloat16")


def test_presets_have_their_sizes_and_take_the_other_settings():
    encoder = make_encoder(ConfigDict(dict(name="vit_tiny", **VIT, pool="mean")))
    assert encoder.func is ViT
    sizes = dict(width=192, depth=12, heads=3)
    assert encoder.keywords == sizes | dict(image_size=16, patch_size=4, pool="mean", dtype=jnp.dtype("bfloat16"))


def test_a_vision_transformer_is_trained_by_any_objective():
    config = tiny.get_config().unlock()
    config.model = dict(name="vit", width=16, depth=2, heads=2, **VIT)
    training = build(config)
    graphdef, state = training.abstract(one_device())
    views = jax.ShapeDtypeStruct((2, 8, 16, 16, 3), jnp.float32)

    def loss(params, rest, views):
        network = nnx.merge(graphdef, params, rest)
        return training.objective.loss(network, {"views": views, "labels": {}}, jax.random.key(0))[0]

    assert jax.eval_shape(loss, state.params, state.rest, views).dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(name="vit_smal"), "model.name='vit_smal' is not known: did you mean 'vit_small'"),
        (dict(name="vit", patchsize=4), "sets 'patchsize', which 'vit' does not take: did you mean 'patch_size'"),
        (dict(name="vit_base", widht=4), "did you mean 'width'"),
        (dict(name="resnet", layers=3), "config.model sets 'layers', which 'resnet' does not take: choose one of"),
    ],
)
def test_unknown_models_and_settings_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(ConfigDict(model | {"dtype": "float32"}))
