"""Random models in the layouts of published checkpoints, written by `transformers`, to load and to compare with."""

import json
import re

import jax
import numpy as np
import pytest

from dnc.compiling import ONCE

WIDTH, SIDE, PATCH, DEPTH = 16, 12, 4, 2
SIZES = dict(hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=2, image_size=SIDE, patch_size=PATCH)
PREPROCESSING = dict(image_processor_type="ViTImageProcessor", size=SIDE)


def configuration(library, name, **settings):
    config = getattr(library, re.sub(r"(Model|ModelWithProjection|For[A-Z]\w+)$", "", name) + "Config")
    if name.startswith("ResNet"):
        return config(**settings)
    mlp = {"mlp_ratio": 2} if name.startswith("Dinov2") else {"intermediate_size": 2 * WIDTH}
    if name in ("CLIPModel", "SiglipModel"):
        text = dict(SIZES, **mlp, vocab_size=8, bos_token_id=0, eos_token_id=1, pad_token_id=2)
        del text["image_size"], text["patch_size"]
        return config(vision_config={**SIZES, **mlp}, text_config=text, **settings)
    return config(**SIZES, **mlp, **settings)


def save_random(name, folder, **settings):
    """A random model of this class of `transformers`, its parameters at a scale where they matter, as published."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    module = getattr(library, name)(configuration(library, name, **settings)).eval()
    randomize(module)
    module.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return module


def randomize(module):
    import torch

    with torch.no_grad():
        for path, p in module.named_parameters():
            deviation = 0.3 if p.ndim < 4 else p[0].numel() ** -0.5
            p.normal_(
                1.0 if p.ndim == 1 and re.search(r"norm\w*\.weight|bn\d\.weight|lambda", path) else 0.0, deviation
            )
        for path, statistic in module.named_buffers():
            if path.endswith("running_mean"):
                statistic.normal_(0.0, 0.3)
            if path.endswith("running_var"):
                statistic.uniform_(0.5, 1.5)


def run(module, images, **inputs):
    """The output of a PyTorch module for images [b, h, w, c]."""
    import torch

    with torch.inference_mode():
        return module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), **inputs)


def encode(encoder, images):
    return jax.jit(lambda encoder, x: encoder(x, train=False), compiler_options=ONCE)(encoder, images)


def assert_close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected.numpy(), rtol=1e-4, atol=1e-4)
