"""Published ResNets: torchvision's names behind the prefixes of releases, timm's, SimCLR's; against PyTorch."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from dnc.compiling import ONCE
from dnc.models.pretrained.layouts import resnet_parameters
from dnc.models.pretrained.load import load_pretrained
from dnc.models.pretrained.preprocessing import Preprocessing, from_config
from dnc.models.pretrained.tensors import read_tensors
from tests.models import torch_resnet
from tests.models.pretrained.published import assert_close, encode

IMAGES = np.random.default_rng(1).normal(size=(2, 75, 50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    return torch_resnet.random_state(18, 2)


def simclr_name(name):
    """Of a torchvision tensor in SimCLR version 2's PyTorch form."""
    name = re.sub(r"^conv1\.", "net.0.0.", name)
    name = re.sub(r"^bn1\.", "net.0.1.0.", name)
    name = re.sub(r"^layer(\d)\.(\d)\.", r"net.\1.blocks.\2.", name)
    name = re.sub(r"(?<=\.)conv(\d)\.", lambda m: f"net.{2 * int(m[1]) - 2}.", name)
    name = re.sub(r"(?<=\.)bn(\d)\.", lambda m: f"net.{2 * int(m[1]) - 1}.0.", name)
    return name.replace("downsample.0.", "projection.shortcut.").replace("downsample.1.", "projection.bn.0.")


def parameters(state, path):
    """What a file of these tensors is read as."""
    save_file(state, path)
    tensors, depth, width = resnet_parameters(read_tensors([path]))
    return {name: tensor.read() for name, tensor in tensors.items() if "num_batches" not in name}, depth, width


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_names_equal_pytorch(depth, tmp_path):
    pytest.importorskip("torch")
    state = torch_resnet.random_state(depth, 4)
    save_file(state, tmp_path / "network.safetensors")
    pretrained = load_pretrained(tmp_path / "network.safetensors")
    assert (pretrained.family, pretrained.features) == ("resnet", "pooled")
    assert_close(encode(pretrained.encoder, IMAGES), torch_resnet.features(state, IMAGES))


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_gradients_equal_pytorch(depth, train, tmp_path):
    """PyTorch's gradients are read as if they were a network's tensors, and so have our names and layouts."""
    pytest.importorskip("torch")
    state = torch_resnet.random_state(depth, 4)
    cotangent = np.random.default_rng(2).normal(size=(8, 32 if depth == 18 else 128)).astype(np.float32)
    images = np.random.default_rng(1).normal(size=(8, 48, 48, 3)).astype(np.float32)

    def read(tensors, name):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        return nnx.split(load_pretrained(tmp_path / f"{name}.safetensors").encoder, nnx.Param, ...)

    graphdef, params, rest = read(state, "network")
    _, expected, _ = read(torch_resnet.gradients(state, images, cotangent, train), "gradients")

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params, rest, copy=True)(jnp.asarray(images), train=train) * cotangent)

    actual = jax.jit(jax.grad(loss), compiler_options=ONCE)(params)
    for (path, one), two in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert np.abs(two).max() > 0
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-4 * np.abs(two).max(), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("prefix", ["module.", "module.pre.", "module.backbone.", "backbone.", "encoder.", "resnet."])
def test_prefixes_and_what_is_beside_them_do_not_matter(small, prefix, tmp_path):
    beside = {"head_of_another.weight": np.zeros((4, 4), np.float32), "queue": np.zeros(3)}
    prefixed = {prefix + name: x for name, x in small.items()}
    expected = parameters(small, tmp_path / "plain.safetensors")
    actual = parameters(prefixed | beside, tmp_path / "prefixed.safetensors")
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("depth", [18, 50])
def test_simclr_version_2_has_the_same_network_under_other_names(depth, tmp_path):
    state = torch_resnet.random_state(depth, 2)
    expected = parameters(state, tmp_path / "plain.safetensors")
    actual = parameters({simclr_name(name): x for name, x in state.items()}, tmp_path / "simclr.safetensors")
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert actual[1:] == (depth, 2)


def test_simclr_version_2_takes_values_between_0_and_1(small, tmp_path):
    save_file({f"resnet.{simclr_name(name)}": x for name, x in small.items()}, tmp_path / "simclr.safetensors")
    expected = Preprocessing(256, (224, 224), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert load_pretrained(tmp_path / "simclr.safetensors").preprocessing == expected


def test_preprocessing_is_that_of_imagenet_unless_a_file_changes_it(small, tmp_path):
    save_file(small, tmp_path / "network.safetensors")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert load_pretrained(tmp_path).preprocessing == Preprocessing(256, (224, 224), "bilinear", mean, std)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    assert load_pretrained(tmp_path).preprocessing == Preprocessing(256, (224, 224), "bilinear", (0.0,) * 3, (1.0,) * 3)


def test_timm_says_how_images_are_prepared(small, tmp_path):
    save_file(small, tmp_path / "model.safetensors")
    settings = dict(input_size=[3, 224, 224], interpolation="bicubic", crop_pct=0.95, mean=[0.5] * 3, std=[0.2] * 3)
    (tmp_path / "config.json").write_text(json.dumps(dict(architecture="resnet18", pretrained_cfg=settings)))
    expected = Preprocessing(235, (224, 224), "bicubic", (0.5,) * 3, (0.2,) * 3)
    assert load_pretrained(tmp_path).preprocessing == expected
    (tmp_path / "config.json").write_text(json.dumps(dict(architecture="resnetaa50", pretrained_cfg=settings)))
    with pytest.raises(ValueError, match=r"'resnetaa50', which is not supported: .* resnet18, resnet34"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {**s, "conv1.weight": np.zeros((2, 3, 3, 3), np.float32)},
            r"first convolution has shape \(3, 3, 3, 2\)",
        ),
        (lambda s: {k: x for k, x in s.items() if "layer3.1" not in k}, r"stages of \(2, 2, 1, 2\) BasicBlocks"),
        (lambda s: {**s, "layer1.0.se.weight": np.zeros(3)}, r"unknown: layer1\.0\.se\.weight$"),
        (lambda s: {k: x for k, x in s.items() if k != "bn1.running_mean"}, r"missing: stem\.norm\.mean$"),
        (
            lambda s: {f"{part}.{name}": x for part in ("encoder_q", "encoder_k") for name, x in s.items()},
            r"2 encoders, \['encoder_k\.', 'encoder_q\.'\]",
        ),
    ],
)
def test_other_networks_are_refused(small, change, message, tmp_path):
    save_file(change(small), tmp_path / "network.safetensors")
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


def test_resnets_that_stride_elsewhere_are_refused(small, tmp_path):
    save_file(small, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="resnet", downsample_in_bottleneck=True)))
    with pytest.raises(ValueError, match="only ResNets that stride in the 3x3"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="resnet")))
    with pytest.raises(FileNotFoundError, match=r"preprocessor_config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(dict(feature_extractor_type="ConvNextFeatureExtractor"))
    )
    assert load_pretrained(tmp_path).preprocessing == from_config(dict(image_processor_type="ConvNextImageProcessor"))
