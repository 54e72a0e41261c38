"""ViT against PyTorch: random models of the families in `transformers`, their weights copied, the same tokens."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.models.vit import ViT, sincos2d

WIDTH, SIDE, PATCH, DEPTH = 16, 12, 4, 2
SIZES = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=2, image_size=SIDE, patch_size=PATCH)
COMMON = dict(image_size=SIDE, patch_size=PATCH, width=WIDTH, depth=DEPTH, heads=2, mlp_ratio=2.0)
IMAGES = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)

NAMES = [  # in PyTorch, here
    (r"embeddings\.(patch_embeddings\.projection|patch_embedding)\.", "embed."),
    (r"embeddings\.(cls_token|class_embedding)", "cls"),
    (r"embeddings\.register_tokens", "registers"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embedding(s|\.weight)", "positions"),
    (r"(encoder\.)?layers?\.(?=\d)", "blocks."),
    (r"(norm1|layernorm_before|layer_norm1)\.", "norm1."),
    (r"(norm2|layernorm_after|layer_norm2)\.", "norm2."),
    (r"(self_attn|attention)\.q_proj", "attention.query"),
    (r"(self_attn|attention)\.k_proj", "attention.key"),
    (r"(self_attn|attention)\.v_proj", "attention.value"),
    (r"(self_attn|attention)\.(o|out)_proj", "attention.out"),
    (r"layer_scale(\d)\.lambda1", r"scale\1"),
    (r"mlp\.fc1", "mlp.first"),
    (r"mlp\.(fc2|down_proj)", "mlp.second"),
    (r"pre_layrnorm\.", "pre_norm."),
    (r"^(post_)?layernorm\.", "norm."),
    (r"^head\.layernorm\.", "pooler.norm."),
    (r"^head\.", "pooler."),
    (r"norm(\d?)\.weight", r"norm\1.scale"),
    (r"\.weight$", ".kernel"),
]


@pytest.fixture(scope="module")
def transformers():
    """The library, with random models of all parameters at a scale where each matters."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("transformers")

    def model(name, **settings):
        torch.manual_seed(0)
        mlp = {"mlp_ratio": 2} if name.startswith("Dinov2") else {"intermediate_size": 2 * WIDTH}
        config = getattr(library, name.replace("Model", "Config"))(**SIZES, **mlp, **settings)
        module = getattr(library, name)(config).eval()
        with torch.no_grad():
            for path, p in module.named_parameters():
                p.normal_(1.0 if re.search(r"norm\d?\.weight|lambda", path) else 0.0, 0.3)
        return module

    return model


def run(module, images, **inputs):
    """The output of a PyTorch module for images [b, h, w, c]."""
    import torch

    with torch.inference_mode():
        return module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), **inputs)


def copied(module, **settings):
    """A ViT with the PyTorch module's weights; every weight must find its place and every place its weight."""
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    for path in [path for path in weights if "gate_proj." in path]:
        gate, up = weights.pop(path), weights.pop(path.replace("gate_proj", "up_proj"))
        weights[path.replace("gate_proj", "fc1")] = np.concatenate([gate, up])
    for path in [path for path in weights if "in_proj_" in path]:
        for letter, part in zip("qkv", np.split(weights.pop(path), 3), strict=True):
            weights[path.replace("in_proj_", f"{letter}_proj.")] = part
    here = {}
    for path, weight in weights.items():
        for pattern, name in NAMES:
            path = re.sub(pattern, name, path)
        if path.endswith("kernel"):
            weight = weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2).reshape(len(weight), -1).T  # rows of (h w c)
            weight = weight if "embed" in path else weight.reshape(-1, weight.shape[-1])
        elif path in ("cls", "registers", "mask_token", "positions", "pooler.probe"):
            weight = weight.reshape(-1, WIDTH)
        here[path] = weight
    if settings.get("class_token", True):  # its position adds to it
        own, here["positions"] = here["positions"][:1], here["positions"][1:]
        here["cls"] = here["cls"] + own
    vit = nnx.eval_shape(lambda: ViT(**COMMON, **settings, rngs=nnx.Rngs(0)))
    if settings.get("position") == "sincos2d":
        del here["positions"]
    for path, p in nnx.to_flat_state(nnx.state(vit, nnx.Param)):
        weight = here.pop(".".join(map(str, path)))
        assert weight.shape == p.shape, path
        p.set_value(jnp.asarray(weight))
    assert not here
    return vit


def tokens(vit, images, **options):
    def both(images, options):
        out = vit.tokens(images, **options)
        return out, vit.pooled(out)

    return jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})(images, options)


def assert_close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "ratio"), [((12, 12), 0.0), ((20, 8), 0.4)])
def test_dinov2(transformers, shape, ratio):
    """Also of a grid of patches taller and narrower than that of the positions, and with masked patches."""
    import torch

    module = transformers("Dinov2Model")
    vit = copied(module, layer_scale=1.0, mask_token=True)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    mask = rng.random((2, shape[0] * shape[1] // PATCH**2)) < ratio
    expected = run(module, images, bool_masked_pos=torch.from_numpy(mask))
    (cls, _, patches), pooled = tokens(vit, images, mask=mask)
    assert_close(patches, expected.last_hidden_state[:, 1:])
    assert_close(cls, expected.last_hidden_state[:, 0])
    assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_with_registers(transformers, swiglu):
    module = transformers("Dinov2WithRegistersModel", num_register_tokens=3, use_swiglu_ffn=swiglu)
    vit = copied(module, layer_scale=1.0, mask_token=True, registers=3, activation="swiglu" if swiglu else "gelu")
    expected = run(module, IMAGES)
    (cls, registers, patches), pooled = tokens(vit, IMAGES)
    for actual, part in ((cls, 0), (registers, slice(1, 4)), (patches, slice(4, None))):
        assert_close(actual, expected.last_hidden_state[:, part])
    assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_mae(transformers, ratio):
    """The patches with the least noise are kept, in the order of their noise. Positions have a test of their own."""
    import torch

    module = transformers("ViTMAEModel", mask_ratio=ratio, layer_norm_eps=1e-6)
    positions = sincos2d(SIDE // PATCH, SIDE // PATCH, WIDTH)
    module.embeddings.position_embeddings.data = torch.from_numpy(np.pad(positions, ((1, 0), (0, 0))))[None]
    vit = copied(module, position="sincos2d")
    noise = np.random.default_rng(3).random((3, 9))
    expected = run(module, IMAGES, noise=torch.from_numpy(noise))
    keep = np.argsort(noise, axis=1)[:, : int(9 * (1 - ratio))]
    (cls, _, patches), _ = tokens(vit, IMAGES, keep=keep)
    assert patches.shape == (3, 9 if ratio == 0 else 4, WIDTH)
    assert_close(cls, expected.last_hidden_state[:, 0])
    assert_close(patches, expected.last_hidden_state[:, 1:])


def test_ijepa(transformers):
    module = transformers("IJepaModel", layer_norm_eps=1e-6, add_pooling_layer=False)
    vit = copied(module, class_token=False, pool="mean")
    expected = run(module, IMAGES).last_hidden_state
    (cls, _, patches), pooled = tokens(vit, IMAGES)
    assert cls is None
    assert_close(patches, expected)
    assert_close(pooled, expected.mean(1))


def test_clip(transformers):
    module = transformers("CLIPVisionModel")
    vit = copied(module, pre_norm=True, patch_bias=False, activation="quick_gelu", epsilon=1e-5)
    expected = run(module, IMAGES)
    (cls, _, patches), pooled = tokens(vit, IMAGES)
    normalised = module.post_layernorm(expected.last_hidden_state.clone()).detach()
    assert_close(patches, normalised[:, 1:])
    assert_close(cls, normalised[:, 0])
    assert_close(pooled, expected.pooler_output)


def test_siglip(transformers):
    module = transformers("SiglipVisionModel")
    vit = copied(module, class_token=False, pool="map", activation="gelu_tanh")
    expected = run(module, IMAGES)
    (_, _, patches), pooled = tokens(vit, IMAGES)
    assert_close(patches, expected.last_hidden_state)
    assert_close(pooled, expected.pooler_output)
