"""ViT against PyTorch: random models of the families in `transformers`, loaded from their files, the same tokens."""

import jax
import numpy as np
import pytest

from dnc.compiling import ONCE
from dnc.models.pretrained.load import load_pretrained
from tests.models.pretrained.published import PATCH, SIDE, WIDTH, assert_close, run, save_random

IMAGES = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)


def tokens(folder, images, **options):
    vit = load_pretrained(folder).encoder

    def both(images, options):
        out = vit.tokens(images, **options)
        return out, vit.pooled(out)

    return jax.jit(both, compiler_options=ONCE)(images, options)


@pytest.mark.parametrize(("shape", "ratio"), [((12, 12), 0.0), ((20, 8), 0.4)])
def test_dinov2(tmp_path, shape, ratio):
    """Also of a grid of patches taller and narrower than that of the positions, and with masked patches."""
    torch = pytest.importorskip("torch")
    module = save_random("Dinov2Model", tmp_path)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    mask = rng.random((2, shape[0] * shape[1] // PATCH**2)) < ratio
    expected = run(module, images, bool_masked_pos=torch.from_numpy(mask))
    (cls, _, patches), pooled = tokens(tmp_path, images, mask=mask)
    assert_close(patches, expected.last_hidden_state[:, 1:])
    assert_close(cls, expected.last_hidden_state[:, 0])
    assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_with_registers(tmp_path, swiglu):
    module = save_random("Dinov2WithRegistersModel", tmp_path, num_register_tokens=3, use_swiglu_ffn=swiglu)
    expected = run(module, IMAGES)
    (cls, registers, patches), pooled = tokens(tmp_path, IMAGES)
    for actual, part in ((cls, 0), (registers, slice(1, 4)), (patches, slice(4, None))):
        assert_close(actual, expected.last_hidden_state[:, part])
    assert_close(pooled, expected.pooler_output)


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_mae(tmp_path, ratio):
    """The patches with the least noise are kept, in the order of their noise."""
    torch = pytest.importorskip("torch")
    module = save_random("ViTMAEModel", tmp_path, mask_ratio=ratio)
    noise = np.random.default_rng(3).random((3, 9))
    expected = run(module, IMAGES, noise=torch.from_numpy(noise))
    keep = np.argsort(noise, axis=1)[:, : int(9 * (1 - ratio))]
    (cls, _, patches), _ = tokens(tmp_path, IMAGES, keep=keep)
    assert patches.shape == (3, 9 if ratio == 0 else 4, WIDTH)
    assert_close(cls, expected.last_hidden_state[:, 0])
    assert_close(patches, expected.last_hidden_state[:, 1:])


@pytest.mark.parametrize("name", ["IJepaModel", "CLIPVisionModel", "SiglipVisionModel"])
def test_families_of_one_form(name, tmp_path):
    module = save_random(name, tmp_path)
    expected = run(module, IMAGES)
    patches = expected.last_hidden_state
    actual, pooled = tokens(tmp_path, IMAGES)
    if name == "CLIPVisionModel":
        normalized = module.post_layernorm(patches.clone()).detach()
        assert_close(actual.cls, normalized[:, 0])
        patches = normalized[:, 1:]
    else:
        assert actual.cls is None
    assert_close(actual.patches, patches)
    assert_close(pooled, patches.mean(1) if name == "IJepaModel" else expected.pooler_output)
