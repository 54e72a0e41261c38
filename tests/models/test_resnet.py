"""ResNet: torchvision's parameter counts, shapes, padding, initialization, statistics, types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models import resnet
from dnc.models.resnet import STEMS, BasicBlock, Bottleneck, ConvNorm, ResNet
from tests.samples import parameters, rngs

IMAGES = jax.random.normal(jax.random.key(3), (4, 16, 16, 3))


def abstract(*args, **settings):
    return nnx.eval_shape(lambda: ResNet(*args, **settings, rngs=rngs()))


def created(*args, **settings):
    return nnx.split(ResNet(*args, **settings, rngs=rngs()))


@pytest.mark.parametrize(
    ("depth", "with_head"), [(10, 5_418_792), (18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)]
)
def test_parameter_counts_equal_torchvision(depth, with_head):
    """Depth 10, which torchvision lacks, was counted by hand: 83,520 + 230,144 + 919,040 + 3,673,088 + 513,000."""
    network = abstract(depth, "imagenet")
    head = network.features * 1000 + 1000
    assert sum(p.size for p in parameters(network).values()) == with_head - head


@pytest.mark.parametrize("depth", [18, 50])
def test_convolutions_have_no_bias_and_everything_is_float32(depth):
    network = abstract(depth, "imagenet", dtype=jnp.bfloat16)
    flat = parameters(network)
    endings = {".".join(name.split(".")[-2:]) for name in flat}
    assert endings == {"conv.kernel", "norm.scale", "norm.bias"}
    assert {p.dtype for p in jax.tree.leaves(nnx.state(network))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("stem", "before_stages"), [("cifar", (32, 32)), ("cifar_s2", (16, 16)), ("imagenet", (8, 8))])
@pytest.mark.parametrize(("depth", "features"), [(18, 64), (50, 256)])
def test_shapes_by_stem(stem, before_stages, depth, features):
    network = abstract(depth, stem, width=8)
    sizes = []

    def forward(network, images):
        x = nnx.relu(network.stem(images, train=False))
        if network.pool:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in network.blocks:
            sizes.append(x.shape[1:3])
            x = block(x, train=False)
        return network(images, train=False)

    out = nnx.eval_shape(forward, network, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
    assert sizes[0] == before_stages
    assert (out.shape, out.dtype, network.features) == ((2, features), jnp.float32, features)


def test_convolutions_start_with_he_fan_out_variance():
    kernel = ConvNorm(64, 128, 3, rngs=rngs()).conv.kernel[...]
    np.testing.assert_allclose(np.var(kernel), 2 / (3 * 3 * 128), rtol=0.02)
    np.testing.assert_allclose(np.mean(kernel), 0.0, atol=1e-3)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_zero_initialized_residual_blocks_start_as_the_identity(block):
    layer = block(4 * block.expansion, 4, 1, zero_init_residual=True, dtype=jnp.float32, rngs=rngs())
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 4, 4, 4 * block.expansion)))
    np.testing.assert_array_equal(layer(x, train=True), x)


@pytest.mark.parametrize("flag", [False, True])
def test_zero_init_residual_zeroes_one_scale_a_block(flag):
    _, state = created(18, width=2, zero_init_residual=flag)
    scales = [p for path, p in nnx.to_flat_state(state) if path[-1] == "scale"]
    assert sum(bool(jnp.all(p[...] == 0)) for p in scales) == (8 if flag else 0)


@pytest.fixture(scope="module")
def forward():
    graphdef, state = created(18, "cifar_s2", width=4)

    def run(state, images, train):
        network = nnx.merge(graphdef, state)
        return network(images, train=train), nnx.state(network)

    return jax.jit(run, static_argnames="train"), state


def test_evaluation_is_deterministic_and_treats_images_alone(forward):
    run, state = forward
    features, after = run(state, IMAGES, train=False)
    np.testing.assert_array_equal(features, run(state, IMAGES, train=False)[0])
    np.testing.assert_allclose(features[::-1], run(state, IMAGES[::-1], train=False)[0], rtol=1e-5, atol=1e-6)
    others = IMAGES.at[1:].set(0.0)
    np.testing.assert_allclose(features[0], run(state, others, train=False)[0][0], rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(after), nnx.to_pure_dict(state))


def test_training_normalizes_with_the_batch_and_updates_every_statistic(forward):
    run, state = forward
    features, after = run(state, IMAGES, train=True)
    assert np.abs(features - run(state, IMAGES, train=False)[0]).max() > 1e-2
    for path, value in nnx.to_flat_state(after):
        changed = bool(jnp.any(value[...] != dict(nnx.to_flat_state(state))[path][...]))
        assert changed == (path[-1] in ("mean", "var")), path


def test_bfloat16_computes_coarsely_but_keeps_statistics_and_features_in_float32(forward):
    run, state = forward
    coarse = nnx.split(abstract(18, "cifar_s2", width=4, dtype=jnp.bfloat16))[0]

    @jax.jit
    def run_coarse(state, images):
        network = nnx.merge(coarse, state)
        return network.stem(images, train=False), network(images, train=True), nnx.state(network)

    stem, features, after = run_coarse(state, IMAGES)
    assert stem.dtype == jnp.bfloat16
    assert features.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    exact = run(state, IMAGES, train=True)[0]
    error = np.linalg.norm(features - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.1


def test_remat_changes_no_feature_gradient_or_statistic(monkeypatch):
    monkeypatch.setitem(resnet.ARCHITECTURES, 18, (BasicBlock, (1, 1)))

    def after(remat):
        graphdef, params, rest = nnx.split(ResNet(18, width=4, remat=remat, rngs=rngs()), nnx.Param, ...)

        def loss(params):
            network = nnx.merge(graphdef, params, rest, copy=True)
            features = network(IMAGES, train=True)
            return jnp.sum(features**2), (features, nnx.split(network, nnx.Param, ...)[2])

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    for plain, again in zip(jax.tree.leaves(after(False)), jax.tree.leaves(after(True)), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 20}, r"depth=20 .* \['10', '101', '18', '34', '50'\]"),
        ({"stem": "tiny"}, "stem='tiny' .*'cifar_s2'"),
        ({"width": 0}, "width=0"),
    ],
)
def test_unknown_architectures_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**settings, rngs=rngs())


def test_stems_are_those_documented():
    assert all(name in ResNet.__doc__ for name in STEMS)


def test_layers_are_the_averages_after_the_stem_and_every_block():
    network = ResNet(10, "cifar_s2", 4, rngs=rngs())
    layers = network.layers(IMAGES)
    x = nnx.relu(network.stem(IMAGES, train=False))
    expected = {"stem.pooled": x.mean((1, 2))}
    for number, block in enumerate(network.blocks, 1):
        x = block(x, train=False)
        expected[f"block{number:02}.pooled"] = x.mean((1, 2))
    assert list(layers) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(layers[name], values, rtol=1e-6)
    np.testing.assert_array_equal(layers["block04.pooled"], network(IMAGES, train=False))
