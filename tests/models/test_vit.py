"""ViT: published parameter counts, positions, masked paths, stochastic depth, rematerialisation, types, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from dnc import distributed
from dnc.compiling import ONCE
from dnc.models.transformer import ACTIVATIONS, Block, BlockSettings, stochastic_depth
from dnc.models.vit import PRESETS, ViT, patchify, sincos2d
from dnc.training.ahead_of_time import collectives
from tests.samples import parameters, rngs

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 12, 3)), jnp.float32)  # 2 x 3 patches of side 4
PATCHES = 6
SMALL = dict(image_size=8, patch_size=4, width=16, depth=1, heads=2)


def filled(module):
    """The abstract module with parameters of standard deviation .3 around 0, LayerNorm's scales around 1."""
    rng = np.random.default_rng(0)
    for path, p in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        p.set_value(jnp.asarray(0.3 * rng.normal(size=p.shape) + (path[-1] == "scale"), jnp.float32))
    return module


def small(**settings):
    return filled(nnx.eval_shape(lambda: ViT(**SMALL | settings, rngs=rngs())))


def compiled(function, *modules):
    """The function of modules and arrays, jitted as a function of the arrays."""
    return jax.jit(lambda *arrays: function(*modules, *arrays), compiler_options=ONCE)


def features(vit, images, key=None, *, train=False):
    return compiled(lambda vit, images, key: vit(images, train=train, key=key), vit)(images, key)


def tokens(vit, images, **options):
    return compiled(lambda vit, images, options: vit.tokens(images, **options), vit)(images, options)


@pytest.mark.parametrize(
    ("name", "published"),
    [("vit_tiny", 5_524_416), ("vit_small", 21_665_664), ("vit_base", 85_798_656), ("vit_large", 303_301_632)],
)
def test_parameter_counts_are_the_published_ones(name, published):
    def count(depth):
        vit = nnx.eval_shape(lambda: ViT(224, **PRESETS[name] | {"depth": depth}, rngs=rngs()))
        return sum(p.size for p in jax.tree.leaves(nnx.state(vit, nnx.Param)))

    width, depth = PRESETS[name]["width"], PRESETS[name]["depth"]
    total = count(1) + (depth - 1) * (count(2) - count(1))
    assert total == published - width  # the class token's own position, which here adds to the token


def test_patches_are_rows_then_columns_of_pixels():
    image = np.arange(4 * 6 * 2).reshape(1, 4, 6, 2).astype(np.float32)
    patches = patchify(jnp.asarray(image), 2)
    assert patches.shape == (1, 6, 8)
    for n in range(6):
        y, x = 2 * (n // 3), 2 * (n % 3)
        np.testing.assert_array_equal(patches[0, n], image[0, y : y + 2, x : x + 2].ravel())


def test_sine_cosine_positions_by_hand():
    actual = sincos2d(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = [f(place * w) for place in (column, row) for f in (np.sin, np.cos) for w in (1.0, 0.01)]
            np.testing.assert_allclose(actual[3 * row + column], expected, rtol=1e-6, atol=1e-7)


def test_tokens_have_their_places_and_pools_take_them():
    vit = small(registers=3, pool="mean")
    out = tokens(vit, IMAGES)
    assert (out.cls.shape, out.registers.shape, out.patches.shape) == ((8, 16), (8, 3, 16), (8, PATCHES, 16))
    np.testing.assert_allclose(features(vit, IMAGES), out.patches.mean(1), rtol=1e-5, atol=1e-6)
    vit.pool = "cls"
    np.testing.assert_array_equal(features(vit, IMAGES), out.cls)
    assert tokens(small(class_token=False, pool="mean"), IMAGES).cls is None


def test_normalizing_the_pooled_feature_leaves_tokens_alone():
    vit = small(pool="mean", final_norm="pooled")
    raw = np.asarray(tokens(vit, IMAGES).patches)
    expected = layer_norm(raw, vit.norm)
    np.testing.assert_allclose(tokens(small(pool="mean"), IMAGES).patches, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features(vit, IMAGES), layer_norm(raw.mean(1), vit.norm), rtol=1e-4, atol=1e-5)


def layer_norm(x, norm, epsilon=1e-6):
    centered = x - x.mean(-1, keepdims=True)
    standardized = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)
    return standardized * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


@pytest.mark.parametrize("position", ["learned", "sincos2d"])
def test_all_patches_in_another_order_are_the_same_patches(position):
    vit = small(position=position, registers=1)
    keep = jnp.argsort(jax.random.uniform(jax.random.key(0), (8, PATCHES)), axis=1)
    whole, shuffled = tokens(vit, IMAGES), tokens(vit, IMAGES, keep=keep)
    np.testing.assert_allclose(shuffled.cls, whole.cls, rtol=1e-4, atol=1e-5)
    expected = jnp.take_along_axis(whole.patches, keep[:, :, None], axis=1)
    np.testing.assert_allclose(shuffled.patches, expected, rtol=1e-4, atol=1e-5)


def test_kept_patches_see_each_other_alone():
    """Two columns of patches as an image of their own, where positions are those of the whole image."""
    vit = small(class_token=False, pool="mean")
    left = jnp.tile(jnp.array([0, 1, 3, 4]), (8, 1))
    kept = tokens(vit, IMAGES, keep=left).patches
    np.testing.assert_array_equal(kept, tokens(vit, IMAGES.at[:, :, 8:].set(7.0), keep=left).patches)
    cropped = small(class_token=False, pool="mean")
    cropped.positions[...] = compiled(lambda vit: vit._positions(2, 3), vit)()[left[0]]
    np.testing.assert_allclose(kept, tokens(cropped, IMAGES[:, :, :8]).patches, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_not_valid_change_nothing():
    """Images that keep two patches and images that keep three, in one array and each without any padding."""
    vit = small(registers=1, depth=2)
    keep = np.tile([4, 0, 5, 2], (8, 1))
    valid = np.arange(4) < np.tile([[2], [3]], (4, 1))
    out = tokens(vit, IMAGES, keep=keep, valid=valid)
    for count, rows in ((2, slice(0, None, 2)), (3, slice(1, None, 2))):
        alone = tokens(vit, IMAGES[rows], keep=keep[rows, :count])
        np.testing.assert_allclose(out.cls[rows], alone.cls, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.registers[rows], alone.registers, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out.patches[rows, :count], alone.patches, rtol=1e-4, atol=1e-5)
    assert np.abs(out.cls - tokens(vit, IMAGES, keep=keep).cls).max() > 1e-3  # which they would, were they valid


def test_a_patch_that_does_not_exist_is_nan():
    out = tokens(small(), IMAGES, keep=jnp.tile(jnp.array([0, PATCHES]), (8, 1)))
    assert np.isnan(out.patches).all()


def test_masked_patches_are_not_seen_but_have_their_place():
    vit = small(mask_token=True)
    mask = jnp.zeros((8, PATCHES), bool).at[:, 5].set(True)
    hidden = IMAGES.at[:, 4:8, 8:12].set(3.0)  # patch 5
    out = tokens(vit, IMAGES, mask=mask)
    np.testing.assert_array_equal(out.patches, tokens(vit, hidden, mask=mask).patches)
    assert np.abs(out.patches - tokens(vit, IMAGES).patches).max() > 1e-3
    assert np.abs(out.patches - tokens(vit, IMAGES, mask=jnp.roll(mask, 1, axis=1)).patches).max() > 1e-3


def test_rematerialised_blocks_are_the_same_values_and_gradients():
    def run(**settings):
        graphdef, params = nnx.split(small(layer_scale=0.5, drop_path=0.5, pool="map", **settings))

        def loss(params):
            return jnp.mean(nnx.merge(graphdef, params)(IMAGES, train=True, key=jax.random.key(1)) ** 3)

        value, gradients = jax.jit(jax.value_and_grad(loss), compiler_options=ONCE)(params)
        return value, parameters(gradients)

    (plain, expected), (again, actual) = run(), run(remat=True)
    np.testing.assert_allclose(again, plain, rtol=1e-6)
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    moved = {name for name, gradient in expected.items() if np.abs(gradient).max() > 1e-3}
    assert {"embed.kernel", "positions", "blocks.0.scale1", "blocks.0.mlp.first.bias", "pooler.probe"} <= moved


def test_stochastic_depth_grows_linearly_and_keeps_the_mean():
    paths = np.asarray(stochastic_depth(jax.random.key(0), 0.4, 3, 20_000))
    assert paths.shape == (3, 2, 20_000)
    np.testing.assert_allclose((paths == 0).mean(axis=2), np.repeat([[0.0], [0.2], [0.4]], 2, axis=1), atol=0.02)
    np.testing.assert_allclose(paths.mean(axis=2), 1.0, atol=0.03)
    np.testing.assert_allclose(paths.max(axis=(1, 2)), [1.0, 1 / 0.8, 1 / 0.6], rtol=1e-6)


def test_paths_multiply_the_branches_of_each_example():
    block = filled(nnx.eval_shape(lambda: Block(BlockSettings(16, 2, layer_scale=0.5), rngs=rngs())))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 16)), jnp.float32)
    out = compiled(lambda block, x, paths: block(x, paths), block)(x, jnp.array([[0.0, 1.0, 2.0], [0.0, 1.0, 0.0]]))
    plain, first = compiled(lambda block, x: (block(x), block.attention(*2 * [block.norm1(x)])), block)(x)
    np.testing.assert_array_equal(out[0], x[0])
    np.testing.assert_allclose(out[1], plain[1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        out[2], x[2] + 2.0 * np.asarray(first[2]) * np.asarray(block.scale1[...]), rtol=1e-4, atol=1e-5
    )


def test_stochastic_depth_follows_the_key_in_training_and_rests_in_evaluation():
    vit, key = small(drop_path=0.9, depth=2), jax.random.key(0)
    run = compiled(lambda vit, key: vit(IMAGES, train=True, key=key), vit)
    np.testing.assert_array_equal(run(key), run(key))
    assert np.abs(run(key) - run(jax.random.key(1))).max() > 1e-3
    plain = features(small(depth=2), IMAGES, train=True)
    np.testing.assert_array_equal(features(vit, IMAGES, key), plain)
    np.testing.assert_array_equal(tokens(vit, IMAGES).cls, plain)
    with pytest.raises(ValueError, match=r"drop_path=0.9: training needs a key"):
        vit(IMAGES, train=True)


@pytest.mark.parametrize("pool", ["mean", "map"])
def test_bfloat16_computes_coarsely_but_gives_float32(pool):
    vit, coarse = small(pool=pool, layer_scale=0.5), small(pool=pool, layer_scale=0.5, dtype=jnp.bfloat16)
    assert {p.dtype for p in parameters(coarse).values()} == {jnp.dtype("float32")}
    block = nnx.eval_shape(coarse.blocks[0], jax.ShapeDtypeStruct((1, PATCHES, 16), jnp.bfloat16))
    assert block.dtype == jnp.bfloat16
    exact, rounded = features(vit, IMAGES), features(coarse, IMAGES)
    every = nnx.eval_shape(lambda vit: vit.tokens(IMAGES), coarse)
    assert {x.dtype for x in (rounded, *jax.tree.leaves(every))} == {jnp.dtype("float32")}
    assert 1e-4 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.05


def test_matrices_start_as_asked_and_biases_at_zero():
    def created(init):
        vit = jax.jit(lambda: nnx.state(ViT(**SMALL | {"width": 64}, init=init, rngs=rngs())), compiler_options=ONCE)
        return parameters(vit())

    for name, p in created("normal").items():
        if name.endswith(("kernel", "cls", "positions")):
            np.testing.assert_allclose(np.std(p), 0.02, rtol=0.25, err_msg=name)
        else:
            np.testing.assert_array_equal(p, 1.0 if name.endswith("scale") else 0.0, err_msg=name)
    kernel, limit = created("xavier_uniform")["blocks.0.mlp.first.kernel"], np.sqrt(6 / (64 + 256))
    assert 0.98 * limit < np.abs(kernel).max() <= limit


def test_a_batch_over_devices_is_encoded_without_communication():
    """Every image, with the patches kept of it, stays on its device."""
    vit = small(pool="map", registers=1, mask_token=True, drop_path=0.5)
    graphdef, state = nnx.split(vit)
    mesh = distributed.make_mesh()
    rows = distributed.batch_sharding(mesh)
    keep, mask = jnp.tile(jnp.arange(4), (8, 1)), jnp.zeros((8, PATCHES), bool).at[:, 3].set(True)

    def run(state, images, keep, mask):
        vit = nnx.merge(graphdef, state)
        return vit.pooled(vit.tokens(images, keep=keep, mask=mask))

    batch = [jax.device_put(x, rows) for x in (IMAGES, keep, mask)]
    state_on_all = jax.device_put(state, distributed.replicated(mesh))
    program = jax.jit(run, out_shardings=rows, compiler_options=ONCE).lower(state_on_all, *batch).compile()
    assert collectives(program.as_text()) == {}
    out = program(state_on_all, *batch)
    assert out.sharding.spec == PartitionSpec(("data", "fsdp"))
    expected = jax.jit(run, compiler_options=ONCE)(state, IMAGES, keep, mask)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_the_sources(activation):
    x = np.linspace(-4, 4, 10)
    error_function = np.vectorize(math.erf)
    expected = {
        "gelu": x * (1 + error_function(x / np.sqrt(2))) / 2,
        "gelu_tanh": x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "quick_gelu": x / (1 + np.exp(-1.702 * x)),
        "swiglu": x[:5] / (1 + np.exp(-x[:5])) * x[5:],
    }[activation]
    np.testing.assert_allclose(ACTIVATIONS[activation](jnp.asarray(x, jnp.float32)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "max"}, "pool='max' is not known: did you mean 'map'"),
        ({"class_token": False}, "pool='cls' needs class_token=True"),
        ({"position": "rotary"}, "position='rotary'"),
        ({"final_norm": "none"}, "final_norm='none'"),
        ({"activation": "relu"}, "activation='relu' .*'gelu'"),
        ({"init": "zeros"}, "init='zeros'"),
        ({"attention": "flash"}, "attention='flash'"),
        ({"heads": 3}, "heads=3 does not divide width=16"),
        ({"patch_size": 5}, "patch_size=5 does not divide image_size=8"),
        ({"width": 18, "position": "sincos2d"}, "width=18: .*multiple of 4"),
        ({"depth": 0}, "depth=0"),
        ({"registers": -1}, "registers=-1"),
        ({"drop_path": 1.0}, r"drop_path=1.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_inputs_are_checked():
    vit = small()
    with pytest.raises(ValueError, match=r"14 x 12 pixels do not divide into patches of patch_size=4"):
        vit(jnp.zeros((1, 14, 12, 3)), train=False)
    with pytest.raises(ValueError, match="mask_token=True"):
        vit.tokens(IMAGES, mask=jnp.zeros((8, PATCHES), bool))
    with pytest.raises(ValueError, match=r"mask of shape \(8, 9\): there are 6 patches"):
        small(mask_token=True).tokens(IMAGES, mask=jnp.zeros((8, 9), bool))
