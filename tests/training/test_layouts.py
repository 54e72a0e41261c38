"""Steps of every objective are the same on one device and on eight, however the batch and the parameters are split."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from dnc import distributed
from dnc.data.tokenizer import encode
from dnc.models import resnet
from dnc.models.encoder import Encoder
from dnc.objectives import Supervised
from dnc.training.build import build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.optimizers import make_optimizer
from dnc.training.run_encoder import make_embedder
from dnc.training.state import TrainState
from dnc.training.step import make_step
from tests.training import runs

SHALLOW = (1, 1)  # stages of blocks: all that matters of a ResNet
LAYOUTS = {"data=8": (8, 1), "data=4,fsdp=2": (8, 2), "fsdp=8": (8, 8)}


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True, params=[SHALLOW, pytest.param((2, 2, 2, 2), marks=pytest.mark.slow)])
def stages(monkeypatch, request):
    """The network's depth; and small parameters count as large."""
    monkeypatch.setattr(distributed, "MIN_SHARDED_SIZE", 64)
    monkeypatch.setattr(jax.nn, "dot_product_attention", attention)
    monkeypatch.setitem(resnet.ARCHITECTURES, runs.DEPTH, (resnet.BasicBlock, request.param))
    return request.param


OPTIMIZERS = {
    "lars": dict(name="lars", weight_decay=1e-4, momentum=0.9, trust_coefficient=0.02, clip=True),
    "muon": dict(name="muon", weight_decay=1e-4),
}


def config_of(name, optimizer="lars", **train):
    config = runs.config_of(name)
    if config.data.captions:
        config.objective.context_length = 8
    config.optimizer = OPTIMIZERS[optimizer]
    config.train.update(batch_size=32, **train)
    return config


def mesh_of(devices, fsdp):
    return distributed.make_mesh(fsdp, jax.devices()[:devices])


def double(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


def as_given(batch, _):
    return {**batch, "views": batch["views"].swapaxes(0, 1)}


def batch_of(index, size=32):
    rng = np.random.default_rng(index)
    views = rng.normal(size=(size, 2, 16, 16, 3)).astype(np.float32)
    labels = {"shape": rng.integers(0, 6, size, dtype=np.int32)}
    tokens = np.stack([encode(str(number), 8) for number in rng.integers(0, 1000, size)])
    return {"views": views, "labels": labels, "tokens": tokens}


def attention(q, k, v, *, is_causal=False, mask=None, implementation):
    """`jax.nn.dot_product_attention` in the type of its inputs: that one's softmax is float32 whatever they are."""
    del implementation
    logits = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    allowed = jnp.tri(q.shape[1], k.shape[1], dtype=bool) if is_causal else True
    allowed = allowed if mask is None else allowed & mask
    return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf)), v)


@functools.cache
def after_steps(stages, name, devices, fsdp, count=5, optimizer="lars"):
    """In float64: loss and gradient norm of each step, and the state after the last.

    A random network doubles a rounding error with every step, in float32 soon past any tolerance; in float64 five
    steps are too few for that, and what remains would be a wrong program.
    """
    config = config_of(name, optimizer)
    config.model.dtype = "float64"
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        training, mesh = build(config), mesh_of(devices, fsdp)
        graphdef, _ = training.abstract(mesh)
        state, seen = double(training.init(mesh)), []
        step = make_step(graphdef, training.objective, training.optimizer, as_given, root_key(config), count)
        for index in range(count):
            state, metrics = step(state, distributed.shard_batch(mesh, double(batch_of(index))))
            seen.append((float(metrics["loss"]), float(metrics["gradient_norm"])))
    return np.array(seen), state


def assert_same_state(actual, expected, tolerance):
    for (path, one), two in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        if "['attention']['key']['bias']" in jax.tree_util.keystr(path) and tolerance:
            continue  # attention does not depend on it: its gradient is zero, and what is computed for it, noise
        one, two = np.asarray(one), np.asarray(two)
        scale = np.linalg.norm(two.astype(np.float64)) or 1.0
        error = np.linalg.norm(one.astype(np.float64) - two) / scale
        assert error <= tolerance, f"{jax.tree_util.keystr(path)}: {error}"


@pytest.mark.parametrize("layout", ["data=4,fsdp=2", *slow("data=8", "fsdp=8")])
@pytest.mark.parametrize("name", ["simclr", *slow(*sorted({*runs.OBJECTIVES} - {"simclr"}))])
def test_layouts_agree(name, layout, stages):
    expected_metrics, expected = after_steps(stages, name, 1, 1)
    metrics, state = after_steps(stages, name, *LAYOUTS[layout])
    np.testing.assert_allclose(metrics, expected_metrics, rtol=1e-9)
    assert_same_state(state, expected, 1e-9)


@pytest.mark.parametrize("layout", ["data=4,fsdp=2", *slow("fsdp=8")])
@pytest.mark.parametrize("name", ["simclr", *slow("dino")])
def test_layouts_agree_under_muon(name, layout, stages):
    expected_metrics, expected = after_steps(stages, name, 1, 1, optimizer="muon")
    metrics, state = after_steps(stages, name, *LAYOUTS[layout], optimizer="muon")
    np.testing.assert_allclose(metrics, expected_metrics, rtol=1e-8)
    assert_same_state(state, expected, 1e-8)
    parts = LAYOUTS[layout][1]
    momentum = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 3 and leaf.size >= 64]
    momentum = [leaf for leaf in momentum if any(size % parts == 0 for size in leaf.shape)]
    assert momentum
    assert not any(leaf.sharding.is_fully_replicated for leaf in momentum)


def test_parameters_and_their_moments_are_split_over_fsdp(stages):
    _, state = after_steps(stages, "simclr", *LAYOUTS["data=4,fsdp=2"])
    split = [leaf for leaf in jax.tree.leaves(state) if not leaf.sharding.is_fully_replicated]
    weights = 2 * (2 * sum(stages) + len(stages) - 1)  # two a block, a shortcut a later stage; each with its moment
    assert len(split) >= weights - 2  # the first shortcut of this narrow network is small
    assert all(leaf.addressable_shards[0].data.size == leaf.size // 2 for leaf in split)


@pytest.mark.parametrize("layout", [(1, 1), (8, 2)])
def test_accumulated_gradients_are_those_of_the_batch(layout):
    """For a network without statistics of the batch: four micro-batches give the step of the whole."""
    objective = Supervised(task="shape", num_classes=6)
    optimizer, mesh = make_optimizer("adamw", 1e-3), mesh_of(*layout)

    def after(accumulate):
        network = objective.network(LayerNormEncoder(nnx.Rngs(0)), rngs=nnx.Rngs(1))
        graphdef, state = TrainState.create(network, optimizer)
        state = jax.device_put(state, distributed.state_sharding(mesh, state))
        step = make_step(graphdef, objective, optimizer, as_given, jax.random.key(0), 5, accumulate)
        for index in range(5):
            state, metrics = step(state, distributed.shard_batch(mesh, batch_of(index)))
        return metrics, state

    (expected, whole), (metrics, state) = after(1), after(4)
    for name in ("loss", "accuracy", "gradient_norm", "parameter_norm"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    assert_same_state(state, whole, 1e-5)


class LayerNormEncoder(Encoder):
    """A patch embedding and one hidden layer: every image by itself."""

    def __init__(self, rngs):
        self.embed = nnx.Conv(3, 16, (4, 4), strides=(4, 4), rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.features, self.dtype = 16, jnp.float32

    def __call__(self, images, *, train):
        return nnx.gelu(self.norm(self.embed(images))).mean(axis=(1, 2))


def test_features_are_the_same_on_every_mesh():
    training = build(config_of("simclr"))
    images = np.random.default_rng(0).integers(0, 255, (37, 16, 16, 3), np.uint8)  # no multiple of the devices

    def features(*layout):
        mesh = mesh_of(*layout)
        graphdef, _ = training.abstract(mesh)
        state = training.init(mesh)
        return make_embedder(graphdef, mesh)(state.params, state.rest, images)

    expected = features(1, 1)
    assert len(expected) == 37
    np.testing.assert_allclose(features(8, 2), expected, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_restores_onto_another_mesh(tmp_path):
    training = build(config_of("simclr"))
    state = training.init(mesh_of(8, 2))
    checkpoints = Checkpoints(epath.Path(tmp_path), keep=[0])
    checkpoints.save(0, state, {"pending": []})
    for devices, fsdp in ((1, 1), (8, 8)):
        _, like = training.abstract(mesh_of(devices, fsdp))
        restored = checkpoints.restore(like, 0).state
        assert_same_state(restored, state, 0.0)
        assert [x.sharding for x in jax.tree.leaves(restored)] == [x.sharding for x in jax.tree.leaves(like)]
    checkpoints.close()
