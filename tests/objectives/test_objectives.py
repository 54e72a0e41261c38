"""Every objective trains a network: functional step, running statistics, dtypes, one pass over both views."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads

from dnc.data.tokenizer import encode
from dnc.models import ViT
from dnc.models.encoder import Encoder
from dnc.models.resnet import ConvNorm
from dnc.objectives import OBJECTIVES, Objective, OnlineProbe, Supervised, ijepa, mae
from dnc.objectives.supervised import ClassifierNetwork
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import warmup_cosine
from tests.samples import rngs

TEXT = {"features": 8, "text_width": 8, "text_depth": 1, "text_heads": 2, "context_length": 6}
SETTINGS = {
    "clip": TEXT,
    "siglip": TEXT,
    "simclr": {"widths": (16, 8)},
    "vicreg": {"widths": (16, 8)},
    "directional": {"widths": (16, 8)},
    "supervised": {"task": "color", "num_classes": 4},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "dino": {"prototypes": 12, "hidden": 16, "bottleneck": 8, "ibot_weight": 1.0, "koleo_weight": 0.1}
    | {"center_momentum": 0.99},  # a target that nearly stands still, for a loss that falls
    "ijepa": {"targets": 2, "predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2},
}
TINY_VIT = dict(image_size=8, patch_size=2, width=16, depth=1, heads=2, qkv_bias=False)  # the keys' bias does nothing
ENCODERS = {  # of the objectives that work on patches
    "mae": TINY_VIT | {"position": "sincos2d"},
    "dino": TINY_VIT | {"mask_token": True},
    "ijepa": TINY_VIT | {"position": "sincos2d", "class_token": False, "pool": "mean"},
}


class TinyEncoder(Encoder):
    """One normalized convolution, pooled: everything that matters of a ResNet, compiled in a second."""

    def __init__(self, dtype, rngs):
        self.block = ConvNorm(3, 8, 3, 2, dtype=dtype, rngs=rngs)
        self.features = 8
        self.dtype = dtype

    def __call__(self, images, *, train):
        return nnx.relu(self.block(images.astype(self.dtype), train=train)).mean(axis=(1, 2), dtype=jnp.float32)


def encoder_of(name, dtype, rngs):
    return ViT(**ENCODERS[name], dtype=dtype, rngs=rngs) if name in ENCODERS else TinyEncoder(dtype, rngs)


def network_of(name, dtype=jnp.float32):
    objective = OBJECTIVES[name](**SETTINGS[name])
    return objective, objective.network(encoder_of(name, dtype, init := rngs()), rngs=init)


def batch_of(size):
    key = jax.random.key(7)
    return {
        "views": jax.random.normal(key, (2, size, 8, 8, 3)),
        "labels": {"color": jnp.arange(size) % 4},
        "tokens": jnp.stack([jnp.asarray(encode(f"{number:b}", 6)) for number in range(size)]),
        "progress": jnp.float32(0.5),
    }


def functional_gradient(objective, graphdef, key=0):
    """Of parameters, the rest and a batch: ((loss, (metrics, rest afterwards)), gradients of the parameters)."""

    def loss(params, rest, batch):
        network = nnx.merge(graphdef, params, rest, copy=True)
        value, metrics = objective.loss(network, batch, jax.random.key(key))
        return value, (metrics, nnx.split(network, nnx.Param, ...)[2])

    return jax.value_and_grad(loss, has_aux=True)


def step_of(objective, graphdef, optimizer):
    gradient = functional_gradient(objective, graphdef)

    @jax.jit
    def step(params, rest, state, batch):
        (value, (metrics, rest)), grads = gradient(params, rest, batch)
        updates, state = optimizer.update(grads, state, params)
        moved = [jnp.any(gradient != 0) for gradient in jax.tree.leaves(grads)]
        return optax.apply_updates(params, updates), rest, state, value, metrics, moved

    return step


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, jnp.float32) for name in sorted(OBJECTIVES)),
        *((name, jnp.bfloat16) for name in sorted(OBJECTIVES) if name not in ("mae", "ijepa")),
        *(pytest.param(name, jnp.bfloat16, marks=pytest.mark.slow) for name in ("mae", "ijepa")),
    ],
)
def test_functional_steps_lower_the_loss_move_every_parameter_and_update_running_statistics(name, dtype):
    objective, network = network_of(name, dtype)
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)
    optimizer = make_optimizer("adamw", warmup_cosine(1e-2, 2, 20), weight_decay=1e-4, clip_norm=3.0)
    step, state = step_of(objective, graphdef, optimizer), optimizer.init(params)
    batch, before, values = batch_of(8), rest, []
    # The gradient of jax's own attention mixes its type with float32.
    attends = name in ENCODERS or "text_width" in SETTINGS[name]
    with jax.numpy_dtype_promotion("standard" if attends else "strict"):
        for _ in range(10):
            params, rest, state, value, metrics, moved = step(params, rest, state, batch)
            values.append(float(value))
            assert values[1:] or all(moved)  # every parameter has a gradient
    assert np.all(np.isfinite(values))
    assert values[-1] < values[0]
    assert all(m.shape == () and m.dtype == jnp.float32 and np.isfinite(m) for m in metrics.values())
    assert {x.dtype for x in jax.tree.leaves((params, rest))} == {jnp.dtype("float32")}
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, rest)))


def test_both_views_are_normalized_as_one_batch():
    _, network = network_of("simclr")
    views = batch_of(4)["views"]
    images = np.concatenate([views[0], views[1]])
    x = network.encoder.block.conv(jnp.asarray(images))
    network(views, train=True)
    np.testing.assert_allclose(network.encoder.block.norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.encoder.block.norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_outputs_belong_to_their_view_and_example():
    _, network = network_of("simclr")
    views = batch_of(3)["views"]
    outputs = network(views, train=False)
    assert outputs.shape == (2, 3, 8)
    for v in range(2):
        for b in range(3):
            alone = network.head(network.encoder(views[v, b][None], train=False), train=False)[0]
            np.testing.assert_allclose(outputs[v, b], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_abstract_batches_are_checked_before_any_work(name):
    objective, batch = OBJECTIVES[name](**SETTINGS[name]), jax.eval_shape(lambda: batch_of(8))
    assert isinstance(objective, Objective)
    objective.check(batch)
    if name != "mae":
        OnlineProbe(objective, {"color": 4}).check(batch)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("simclr", {"temperature": 0.0}, "temperature=0"),
        ("directional", {"bound": "markov"}, "bound='markov' is not known"),
        ("directional", {"epsilon": 0.0}, "epsilon=0"),
        ("clip", {"scale": 101.0}, "scale=101"),
        ("siglip", {"scale": 0.0}, "scale=0"),
        ("supervised", {"num_classes": 1}, "num_classes=1"),
        ("supervised", {"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ("mae", {"mask_ratio": 1.0}, "mask_ratio=1"),
        ("ijepa", {"targets": 0}, "targets=0"),
        ("ijepa", {"target_scale": (0.2, 0.1)}, "target_scale"),
        ("ijepa", {"context_scale": (0.9, 1.1)}, "context_scale"),
        ("ijepa", {"momentum": (0.9, 2.0)}, "momentum"),
        ("dino", {"centering": "median"}, "centering='median' is not known: did you mean 'mean'"),
        ("dino", {"student_temperature": 0.0}, "temperatures are positive"),
        ("dino", {"freeze_last_layer": 1.5}, "freeze_last_layer=1.5"),
        ("dino", {"mask_ratio": (0.5, 0.1)}, "mask_ratio="),
        ("dino", {"momentum": (0.9, 2.0)}, "momentum="),
    ],
)
def test_hyperparameters_are_checked(name, settings, message):
    with pytest.raises(ValueError, match=message):
        OBJECTIVES[name](**SETTINGS[name] | settings)


def test_parts_of_a_batch_may_not_follow_a_teacher_each():
    separable = {name: OBJECTIVES[name](**SETTINGS[name]).separable for name in ENCODERS}
    assert separable == {"mae": True, "dino": False, "ijepa": False}


def test_supervised_needs_its_task_among_the_labels():
    network = network_of("supervised")[1]
    assert isinstance(network, ClassifierNetwork)
    with pytest.raises(ValueError, match=r"objective.task='shape' is not known: choose one of \['color'\]"):
        Supervised(task="shape", num_classes=4).loss(network, batch_of(4), jax.random.key(0))


@pytest.mark.parametrize(
    ("loss", "error"),
    [
        (mae.reconstruction_loss, np.square),
        (ijepa.feature_loss, lambda x: np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)),
    ],
    ids=["mae", "ijepa"],
)
def test_losses_of_patches_are_the_mean_over_those_that_count_alone(loss, error):
    rng = np.random.default_rng(0)
    predicted, targets = 2 * rng.normal(size=(2, 3, 5, 4))
    counts = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    blocks = (lambda x: x[:, None]) if loss is ijepa.feature_loss else lambda x: x  # one per image
    given = [blocks(x) for x in (*jnp.asarray([predicted, targets], jnp.float32), jnp.asarray(counts))]
    value, gradient = jax.jit(jax.value_and_grad(loss))(*given)
    np.testing.assert_allclose(value, np.mean(error(predicted - targets)[counts]), rtol=1e-5)
    np.testing.assert_array_equal(np.any(np.asarray(gradient) != 0, axis=-1), given[2])
    with jax.enable_x64(True):
        exact = [blocks(jnp.asarray(x)) for x in (predicted, targets, counts)]
        check_grads(jax.jit(lambda x: loss(x, *exact[1:])), (exact[0],), order=1, modes=["rev"])


@pytest.mark.parametrize(("name", "pool"), [("mae", "map"), ("ijepa", "map"), ("ijepa", "cls")])
def test_a_feature_that_the_objective_does_not_train_is_refused(name, pool):
    encoder = nnx.eval_shape(lambda: ViT(**TINY_VIT | {"pool": pool}, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=f"does not train the feature of pool='{pool}': set config.model.pool to one"):
        OBJECTIVES[name](**SETTINGS[name]).network(encoder, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_objectives_on_patches_refuse_other_encoders(name):
    with pytest.raises(ValueError, match=r"TinyEncoder has none: set config.model.name='vit'"):
        OBJECTIVES[name](**SETTINGS[name]).network(TinyEncoder(jnp.float32, nnx.Rngs(0)), rngs=nnx.Rngs(0))
