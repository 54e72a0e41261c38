"""Features into files: shards, resuming, refusing, broken images."""

import dataclasses
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dnc
from dnc import distributed
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError
from dnc.features.embedding import GLOBAL_BATCH, ImageEncoder, embed, published_encoder
from dnc.features.files import read_features

N = 700  # more than one batch


@dataclasses.dataclass(frozen=True)
class Partly(ArrayImages):
    """Some of whose images cannot be read."""

    broken: tuple[int, ...] = ()

    def image(self, index):
        if index in self.broken:
            raise BrokenImageError(f"{self.name(index)}: no image")
        return super().image(index)


def images(n=N, broken=()):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), np.uint8)
    return Partly(pixels, {"class": np.arange(n) % 3}, {"class": ["a", "b", "c"]}, broken=broken)


def expected_features():
    return images().images.reshape(N, -1)[:, :6]


def relabeled(source):
    return dataclasses.replace(source, labels={"class": np.roll(source.labels["class"], 1)})


def encoder(scale=1.0, name="one"):
    """Features that are rows of pixels, and a record of the images that were prepared."""
    prepared = []

    def prepare(source, row):
        prepared.append(row)
        return source.image(row)

    encode = jax.jit(lambda x: scale * x.reshape(len(x), -1)[:, :6].astype(jnp.float32))
    return ImageEncoder(prepare, encode, (4, 4), {"name": name}), prepared


def run(output, source=None, made=None, devices=8, **options):
    made = encoder()[0] if made is None else made
    mesh = distributed.make_mesh(devices=jax.devices()[:devices])
    return embed(made, images() if source is None else source, output, mesh, title="toy", **options)


def test_one_file_holds_features_labels_names_and_ids_in_order(tmp_path):
    made = run(tmp_path / "x.npz")
    assert (made.readable, made.images, made.dimension) == (N, N, 6)
    with np.load(tmp_path / "x.npz") as arrays:
        np.testing.assert_array_equal(arrays["features"], expected_features())
        np.testing.assert_array_equal(arrays["labels_class"], np.arange(N) % 3)
        assert arrays["class_names_class"].tolist() == ["a", "b", "c"]
        assert arrays["ids"][-1] == f"image {N - 1}"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("shard_size", [100, GLOBAL_BATCH + 1, 10_000])
def test_shards_are_read_back_as_one_set(tmp_path, shard_size):
    made = run(tmp_path / "out", shard_size=shard_size, devices=1)
    assert len(made.files) == -(-N // shard_size)
    back = read_features(tmp_path / "out")
    np.testing.assert_array_equal(back.features, expected_features())
    assert dnc.analyze(back.features, back.labels, class_names=back.class_names, shots=[1]).samples == N


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_interrupted_it_goes_on_after_the_last_whole_shard(tmp_path, name):
    made, prepared = encoder()

    def interrupted(source, row):
        if row == 450:
            raise KeyboardInterrupt
        return made.prepare(source, row)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / name, made=dataclasses.replace(made, prepare=interrupted), shard_size=200)
    prepared.clear()
    run(tmp_path / name, made=made, shard_size=200)
    assert sorted(prepared) == list(range(400, N))
    np.testing.assert_array_equal(read_features(tmp_path / name).features, expected_features())


def test_part_of_the_shards_is_not_analyzed(tmp_path):
    made = run(tmp_path / "out", shard_size=300)
    made.files[1].unlink()
    with pytest.raises(ValueError, match="holds 2 of 3 shards"):
        read_features(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(made=encoder(name="two")[0]), "encoder was {'name': 'one'} and is now {'name': 'two'}"),
        (dict(source=images(8)), "count was 700 and is now 8"),
        (dict(source=relabeled(images())), "names_and_labels was"),
        (dict(source=dataclasses.replace(images(), labels={}, class_names={})), "names_and_labels was"),
        (dict(dtype="float16"), "dtype was float32 and is now float16"),
    ],
    ids=["encoder", "images", "labels", "no labels", "dtype"],
)
def test_features_of_something_else_are_not_continued(tmp_path, changes, message):
    run(tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tmp_path / "out", **changes)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("name", ["x.csv", "x.h5"])
def test_an_output_of_another_format_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: features are written to a file that ends in \.npz, or to a folder"):
        run(tmp_path / name)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_broken_images_are_left_out_and_named_once(tmp_path, capsys):
    source = images(20, broken=(0, 7, 19))
    made = run(tmp_path / "x.npz", source)
    assert (made.readable, made.images) == (17, 20)
    back = read_features(tmp_path / "x.npz")
    rows = np.setdiff1d(np.arange(20), source.broken)
    np.testing.assert_array_equal(back.features, source.images[rows].reshape(17, -1)[:, :6])
    np.testing.assert_array_equal(back.labels["class"], rows % 3)
    named = [line for line in capsys.readouterr().err.splitlines() if line.startswith("broken image")]
    assert len(named) == 3
    with pytest.raises(BrokenImageError, match="image 0"):
        run(tmp_path / "y.npz", source, broken=BrokenFiles("raise"))


@pytest.mark.parametrize("name", ["z", "z.npz"])
def test_images_that_cannot_be_read_can_be_repaired(tmp_path, name):
    with pytest.raises(ValueError, match="none of the 3 images of toy can be read"):
        run(tmp_path / name, images(3, broken=(0, 1, 2)))
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path / name, images(3)).readable == 3


def test_float16_is_rounded_and_refused_where_it_overflows(tmp_path):
    run(tmp_path / "x.npz", dtype="float16")
    assert read_features(tmp_path / "x.npz").features.dtype == np.float16
    with pytest.raises(ValueError, match=r"the features of image 0 are beyond what float16 holds"):
        run(tmp_path / "y.npz", made=encoder(1e5)[0], dtype="float16")
    with pytest.raises(ValueError, match=r"the features of image 0 are not finite"):
        run(tmp_path / "z.npz", made=encoder(float("nan"))[0])


def test_the_record_says_what_the_features_are_of(tmp_path):
    run(tmp_path / "out", shard_size=300)
    record = json.loads((tmp_path / "out" / "embedding.json").read_text())
    assert re.fullmatch("[0-9a-f]{16}", record.pop("names_and_labels"))
    assert record == {"encoder": {"name": "one"}, "images": "toy", "count": N, "dtype": "float32", "shard_size": 300}


def test_the_weights_are_part_of_what_is_recorded(tmp_path):
    """Other weights, or another preparation, in the folder of the same name: no shard of theirs is mixed in."""
    mesh = distributed.make_mesh(devices=jax.devices()[:1])

    def identity():
        return dict(published_encoder(dnc.load_pretrained(tmp_path), mesh).identity)

    random_dinov2(tmp_path)
    first = identity()
    assert first == identity()
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | {"crop_size": 14}))
    prepared_otherwise = identity()
    random_dinov2(tmp_path)
    assert len({one["files"] for one in (first, prepared_otherwise, identity())}) == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out", {"dtype": "int8"}, "dtype="),
        ("out", {"shard_size": 0}, "shard_size="),
        ("x.npy", {}, r"x\.npy: features are written to a file that ends in \.npz, or to a folder"),
    ],
)
def test_options_are_checked_first(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def random_dinov2(folder):
    from transformers import Dinov2Config, Dinov2Model

    Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(folder)
    settings = dict(image_processor_type="BitImageProcessor", size={"shortest_edge": 32}, crop_size=28)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_a_published_encoder_embeds_with_its_own_preparation(tmp_path):
    """Random weights that transformers wrote; odd-sized images; the command line."""
    random_dinov2(tmp_path / "x")
    rng = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + index, 61, 3), np.uint8)).save(folder / f"{index}.png")
    flags = [
        f"--{flag}={tmp_path / name}" for flag, name in dict(pretrained="x", images="photos", output="y.npz").items()
    ]
    done = subprocess.run([sys.executable, "-m", "dnc", "embed", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 features of dimension 24" in done.stdout
    pretrained = dnc.load_pretrained(tmp_path / "x")
    with np.load(tmp_path / "y.npz") as arrays:
        assert arrays["ids"].tolist() == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
        pictures = [Image.open(tmp_path / "photos" / name) for name in arrays["ids"]]
        batch = np.stack([pretrained.preprocessing.image(picture) for picture in pictures])
        expected = pretrained.encoder(pretrained.preprocessing.standardize(batch), train=False)
        np.testing.assert_allclose(arrays["features"], expected, rtol=1e-4, atol=1e-4)
