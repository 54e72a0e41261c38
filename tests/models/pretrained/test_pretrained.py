"""load_pretrained: features of random checkpoints of `transformers` equal PyTorch's; what is refused, and how."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import dnc
from dnc.distributed import make_mesh, state_sharding
from dnc.models.pretrained import load as loading
from dnc.models.pretrained.load import load_pretrained
from dnc.models.resnet import ARCHITECTURES, Bottleneck
from tests.models.pretrained.published import DEPTH, SIDE, WIDTH, assert_close, encode, run, save_random


def photographs(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def cls(out):
    return out.last_hidden_state[:, 0]


def mean(out):
    return out.last_hidden_state[:, 1:].mean(1)


def mean_of_all(out):
    return out.last_hidden_state.mean(1)


def pooled(out):
    return out.pooler_output


MAE = dict(mask_ratio=0.0)
CASES = {  # class of transformers: its settings, how to get its tower, the family, and for each choice the reference
    "Dinov2ForImageClassification": ({}, lambda m: m.dinov2, "dinov2", {"cls": cls, "mean": mean}),
    "Dinov2WithRegistersModel": (
        dict(num_register_tokens=3),
        lambda m: m,
        "dinov2_with_registers",
        {"cls": cls, "mean": lambda out: out.last_hidden_state[:, 4:].mean(1)},
    ),
    "ViTModel": ({}, lambda m: m, "vit", {"cls": cls, "mean": mean}),
    "ViTMAEForPreTraining": (MAE, lambda m: m.vit, "vit_mae", {"cls": cls, "mean": mean}),
    "IJepaForImageClassification": ({}, lambda m: m.ijepa, "ijepa", {"mean": mean_of_all}),
    "CLIPModel": (dict(projection_dim=8), lambda m: m.vision_model, "clip", {"pooled": pooled}),
    "CLIPVisionModelWithProjection": (
        dict(projection_dim=8),
        lambda m: m,
        "clip",
        {"pooled": None, "projected": lambda out: out.image_embeds},
    ),
    "SiglipModel": ({}, lambda m: m.vision_model, "siglip", {"pooled": pooled, "mean": mean_of_all}),
}


@pytest.mark.parametrize("name", CASES)
def test_features_equal_those_of_transformers_at_another_resolution(name, tmp_path):
    """Images taller and narrower than those of the positions, which both interpolate."""
    settings, tower, family, choices = CASES[name]
    module = save_random(name, tmp_path, **settings)
    images = photographs(20, 8)
    expected = run(tower(module), images, interpolate_pos_encoding=True)
    assert load_pretrained(tmp_path).features == next(iter(choices))
    for choice, reference in choices.items():
        pretrained = load_pretrained(tmp_path, features=choice)
        assert (pretrained.family, pretrained.features, pretrained.name) == (family, choice, str(tmp_path))
        if reference is not None:
            actual = encode(pretrained.encoder, images)
            assert actual.shape == (2, pretrained.encoder.features)
            assert_close(actual, reference(expected))


@pytest.mark.parametrize("name", CASES)
def test_tokens_after_every_block_are_the_hidden_states_of_transformers(name, tmp_path):
    settings, tower, family, choices = CASES[name]
    module = save_random(name, tmp_path, **settings)
    images = photographs(SIDE, SIDE)
    expected = run(tower(module), images, output_hidden_states=True)
    choice = [*choices][-1] if family == "clip" else next(iter(choices))
    encoder = load_pretrained(tmp_path, features=choice).encoder
    layers = jax.jit(lambda encoder, x: encoder.layers(x))(encoder, images)
    blocks = [f"block{number:02}" for number in range(1, DEPTH + 1)]
    first = dict(dinov2_with_registers=4, ijepa=0, siglip=0).get(family, 1)
    tokens = {"cls": lambda x: x[:, 0]} if first else {}
    tokens["mean"] = lambda x: x[:, first:].mean(1)
    own = {"pooled": "cls"}.get(choice, choice) if family == "clip" else choice
    assert {*layers} == {f"{layer}.{token}" for layer in [*blocks, "output"] for token in tokens} | {f"output.{own}"}
    for block, hidden in zip(blocks, expected.hidden_states[1:], strict=True):
        if family == "siglip" and block == blocks[-1]:
            continue  # transformers gives this one after its final normalization
        for token, of in tokens.items():
            assert_close(layers[f"{block}.{token}"], of(hidden))
    np.testing.assert_allclose(layers[f"output.{own}"], encode(encoder, images), rtol=1e-5, atol=1e-5)
    for token in tokens:
        if choices.get(token):
            assert_close(layers[f"output.{token}"], choices[token](expected))


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_of_transformers(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, 50, (Bottleneck, (1, 2, 1, 1)))  # compiles sooner; another test has all of it
    sizes = dict(basic=((4, 8, 16, 32), (2, 2, 2, 2)), bottleneck=((16, 32, 64, 128), (1, 2, 1, 1)))[kind]
    settings = dict(embedding_size=4, hidden_sizes=sizes[0], depths=sizes[1], layer_type=kind)
    module = save_random("ResNetForImageClassification", tmp_path, **settings)
    pretrained = load_pretrained(tmp_path)
    images = photographs(70, 50)
    assert (pretrained.family, pretrained.features) == ("resnet", "pooled")
    assert_close(encode(pretrained.encoder, images), run(module.resnet, images).pooler_output[:, :, 0, 0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder to read, and a function that copies it to change it."""
    folder = tmp_path_factory.mktemp("dinov2")
    save_random("Dinov2Model", folder)
    return folder


def same(tensors):
    return tensors


@pytest.fixture
def changed(checkpoint, tmp_path):
    """A copy of the checkpoint, with a change of its tensors and of config.json."""

    def change(tensors=same, **config):
        folder = tmp_path / "changed"
        shutil.copytree(checkpoint, folder)
        old = load_file(folder / "model.safetensors")
        save_file(tensors(old), folder / "model.safetensors")
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **config}))
        return folder

    return change


def parameters(folder, **options):
    return jax.tree.leaves(jax.tree.map(np.asarray, jax.tree.leaves(load_pretrained(folder, **options).encoder)))


def test_it_is_public_and_gives_an_encoder_and_its_preprocessing(checkpoint):
    pretrained = dnc.load_pretrained(str(checkpoint))
    assert pretrained.encoder.features == WIDTH
    assert pretrained.preprocessing.size == (SIDE, SIDE)
    assert pretrained.preprocessing.mean == (0.5, 0.5, 0.5)


def test_shards_and_a_file_are_the_same_checkpoint(checkpoint, tmp_path):
    tensors = sorted(load_file(checkpoint / "model.safetensors").items())
    shards = {"model-00001-of-00002.safetensors": tensors[::2], "model-00002-of-00002.safetensors": tensors[1::2]}
    for name, part in shards.items():
        save_file(dict(part), tmp_path / name)
    index = {"weight_map": {name: file for file, part in shards.items() for name, _ in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint / name, tmp_path)
    expected = parameters(checkpoint)
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path), expected)
    jax.tree.map(np.testing.assert_array_equal, parameters(checkpoint / "model.safetensors"), expected)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['model-00002-of-00002.safetensors'\]"):
        load_pretrained(tmp_path)


def test_half_precision_files_become_float32(changed):
    half = changed(lambda tensors: {name: x.astype(jnp.bfloat16) for name, x in tensors.items()})
    encoder = load_pretrained(half, dtype=jnp.bfloat16).encoder
    assert {leaf.dtype for leaf in jax.tree.leaves(encoder)} == {jnp.dtype("float32")}
    assert encoder.dtype == jnp.bfloat16


def test_tensors_go_where_the_shardings_say(checkpoint, monkeypatch):
    monkeypatch.setattr("dnc.distributed.MIN_SHARDED_SIZE", 1)
    mesh = make_mesh(fsdp=4)
    encoder = load_pretrained(checkpoint, shardings=functools.partial(state_sharding, mesh)).encoder
    leaves = jax.tree.leaves(encoder)
    assert all(len(leaf.sharding.device_set) == 8 for leaf in leaves)
    assert {leaf.addressable_data(0).size < leaf.size for leaf in leaves} == {True}
    jax.tree.map(np.testing.assert_array_equal, [np.asarray(leaf) for leaf in leaves], parameters(checkpoint))


def test_only_what_the_features_need_is_read(tmp_path, monkeypatch):
    """The text tower may be broken: not even its values are looked at."""
    save_random("SiglipModel", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spoilt = [name for name in tensors if name.startswith(("text_model.", "vision_model.head."))]
    save_file(
        {**tensors, **{name: np.full_like(tensors[name], np.nan) for name in spoilt}}, tmp_path / "model.safetensors"
    )
    assert load_pretrained(tmp_path, features="mean").features == "mean"
    with pytest.raises(ValueError, match=r"tensor vision_model\.head\.\S+ has values that are not finite"):
        load_pretrained(tmp_path, features="pooled")


def replaced(name, value):
    return lambda tensors: {**tensors, name: value}


def without(*names):
    return lambda tensors: {name: x for name, x in tensors.items() if name not in names}


NORM, BIAS = "encoder.layer.1.norm1.weight", "layernorm.bias"


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (without(NORM, BIAS), {}, r"missing: blocks\.1\.norm1\.scale, norm\.bias$"),
        (replaced("adapter.weight", np.ones(3)), {}, r"unknown: adapter\.weight$"),
        (replaced(BIAS, np.ones(5, np.float32)), {}, r"tensor layernorm\.bias .*\(5,\).*needs \(16,\)"),
        (replaced(BIAS, np.full(WIDTH, np.inf)), {}, r"tensor layernorm\.bias .* not finite"),
        (same, {"image_size": 20}, r"position_embeddings .*\(9, 16\).*needs \(25, 16\)"),
        (same, {"patch_size": 6}, r"projection\.weight .*\(48, 16\).*needs \(108, 16\)"),
        (same, {"num_hidden_layers": DEPTH + 1}, r"missing: blocks\.2\.attention"),
        (same, {"model_type": "beit"}, r"model_type 'beit', which is not supported: only clip, dinov2,"),
        (same, {"hidden_act": "selu"}, r"hidden_act='selu'"),
        (same, {"image_size": [20, 24]}, r"image_size=\[20, 24\] must be square"),
        (lambda tensors: {"a": np.ones(3)}, {}, r"no tensor has the name"),
        (
            lambda tensors: {f"{part}.{name}": x for part in ("student", "teacher") for name, x in tensors.items()},
            {},
            r"2 encoders, \['student\.', 'teacher\.'\]",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(changed, change, config, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(changed(change, **config))


def test_unknown_features_are_refused(checkpoint):
    with pytest.raises(ValueError, match=r"features of dinov2='pooled' is not known: choose one of \['cls', 'mean'\]"):
        load_pretrained(checkpoint, features="pooled")


def test_a_clip_tower_without_projection_cannot_project(tmp_path):
    save_random("CLIPVisionModel", tmp_path)
    with pytest.raises(ValueError, match=r"this checkpoint has no projection, choose features='pooled'"):
        load_pretrained(tmp_path, features="projected")


def test_pickled_weights_are_refused_and_how_to_convert_them_said(checkpoint, tmp_path):
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"convert them once with PyTorch"):
        load_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a \.safetensors file, and pickled weights"):
        load_pretrained(tmp_path / "pytorch_model.bin")


def test_broken_and_missing_files_are_named(changed, tmp_path):
    folder = changed()
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks preprocessor_config\.json"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"\x10" * 20)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a complete safetensors file"):
        load_pretrained(folder)
    for missing in ("./nowhere", str(tmp_path / "nowhere"), "folder/missing.safetensors"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            load_pretrained(missing)


def test_names_are_downloaded_without_pickles(checkpoint, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    pretrained = load_pretrained("facebook/dinov2-base")
    assert pretrained.name == "facebook/dinov2-base"
    assert asked == [("facebook/dinov2-base", loading.DOWNLOADED)]
    assert all(pattern.endswith((".json", ".safetensors")) for pattern in loading.DOWNLOADED)


def test_without_a_network_one_line_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        OSError, match=r"^'facebook/none' is not a local folder, .*: check the name .* local folder"
    ) as error:
        load_pretrained("facebook/none")
    assert "\n" not in str(error.value)
