"""Features into files: shards, resuming, refusing, broken images."""

import dataclasses
import errno
import json
import re
import subprocess
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dnc
from dnc import distributed, files
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError
from dnc.features.embedding import GLOBAL_BATCH, ImageEncoder, embed, published_encoder
from dnc.features.files import feature_sets, read_features

N = 700  # more than one batch


@dataclasses.dataclass(frozen=True)
class Partly(ArrayImages):
    """Some of whose images cannot be read."""

    broken: Sequence[int] = ()

    def image(self, index):
        if index in self.broken:
            raise BrokenImageError(f"{self.name(index)}: no image")
        return super().image(index)


def images(n=N, broken=()):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), np.uint8)
    return Partly(pixels, {"class": np.arange(n) % 3}, {"class": ["a", "b", "c"]}, broken=broken)


def expected_features():
    return images().images.reshape(N, -1)[:, :6]


def repainted(source):
    return dataclasses.replace(source, images=255 - source.images)


class Renamed(Partly):
    def name(self, index):
        return f"picture {index}"


def contents_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    return embed(made, images() if source is None else source, output, mesh, **{"title": "toy", **options})


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
def test_several_feature_sets_are_stored_by_name_in_order_and_read_one_by_one(tmp_path, name):
    made = dataclasses.replace(encoder()[0], sets={"second.cls": 4, "first.mean": 2})
    assert run(tmp_path / name, made=made, shard_size=300).dimension == 6
    assert feature_sets(tmp_path / name) == ["features_second.cls", "features_first.mean"]
    parts = [read_features(tmp_path / name, features_key=key) for key in feature_sets(tmp_path / name)]
    np.testing.assert_array_equal(np.concatenate([part.features for part in parts], axis=1), expected_features())
    assert parts[0].features.shape == (N, 4)
    np.testing.assert_array_equal(parts[1].labels["class"], np.arange(N) % 3)
    with pytest.raises(ValueError, match=r"2 feature sets.*features_second\.cls, features_first\.mean"):
        read_features(tmp_path / name)
    again, prepared = encoder()
    run(tmp_path / name, made=dataclasses.replace(again, sets=made.sets), shard_size=300)
    assert prepared == []


def test_a_file_of_one_set_has_no_several(tmp_path):
    run(tmp_path / "x.npz")
    assert feature_sets(tmp_path / "x.npz") == []
    assert feature_sets(tmp_path / "missing.npz") == []


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
        (dict(source=repainted(images())), "the images have other sizes, dates or content"),
        (dict(source=Renamed(**vars(images()))), "names was"),
        (dict(dtype="float16"), "dtype was float32 and is now float16"),
        (dict(title="other"), "images was toy and is now other"),
    ],
    ids=["encoder", "count", "content", "names", "dtype", "title"],
)
@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_features_of_something_else_are_neither_continued_nor_replaced(tmp_path, name, changes, message):
    run(tmp_path / name)
    before = contents_below(tmp_path)
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tmp_path / name, **changes)
    assert contents_below(tmp_path) == before


def test_a_shard_size_of_its_own_is_not_mixed_in(tmp_path):
    run(tmp_path / "out", shard_size=300)
    with pytest.raises(ValueError, match="shard_size was 300 and is now 250"):
        run(tmp_path / "out", shard_size=250)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: None,
        lambda file: file.write(b"mine"),
        lambda file: np.save(file, np.arange(3)),
        lambda file: np.savez(file, features=np.zeros((3, 6))),
        lambda file: np.savez(file, embedding=np.array("[1]")),
    ],
)
def test_a_file_of_someone_else_is_not_replaced(tmp_path, write):
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        write(file)
    before = contents_below(tmp_path)
    with pytest.raises(ValueError, match=r"x\.npz exists, and is not a file that dnc embed wrote: choose"):
        run(path)
    assert contents_below(tmp_path) == before


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_corrected_labels_replace_the_old_ones_and_nothing_is_embedded(tmp_path, name, capsys):
    made, prepared = encoder()
    source = images(broken=(5, 300))
    run(tmp_path / name, source, made, shard_size=300)
    prepared.clear()
    labels = {"class": (np.arange(N) // 7) % 2, "other": np.arange(N) % 5}
    names = {"class": ["x", "y"], "other": list("abcde")}
    run(tmp_path / name, dataclasses.replace(source, labels=labels, class_names=names), made, shard_size=300)
    assert prepared == []
    assert "the labels are replaced" in capsys.readouterr().err
    back, kept = read_features(tmp_path / name), np.setdiff1d(np.arange(N), source.broken)
    np.testing.assert_array_equal(back.features, expected_features()[kept])
    for task in labels:
        np.testing.assert_array_equal(back.labels[task], labels[task][kept])
    assert back.class_names == names
    before = contents_below(tmp_path)
    run(tmp_path / name, dataclasses.replace(source, labels=labels, class_names=names), made, shard_size=300)
    assert contents_below(tmp_path) == before


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_arrays_that_were_added_to_finished_features_stay(tmp_path, name):
    (file,) = run(tmp_path / name).files
    with np.load(file) as arrays:
        added = {"labels_mine": np.arange(N) % 5, "notes": np.array("x")}
        np.savez(file, **arrays, **added)
    before = contents_below(tmp_path)
    run(tmp_path / name)
    assert contents_below(tmp_path) == before
    corrected = dataclasses.replace(images(), labels={"class": (np.arange(N) + 1) % 3})
    run(tmp_path / name, corrected)
    with np.load(file) as arrays:
        for key, values in (added | {"labels_class": corrected.labels["class"]}).items():
            np.testing.assert_array_equal(arrays[key], values)


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_shards_of_an_unfinished_embedding_take_the_labelings_that_are_chosen_last(tmp_path, name):
    both = dataclasses.replace(
        images(broken=range(300, 320)),
        labels={"class": np.arange(N) % 3, "other": np.arange(N) % 2},
        class_names={"class": list("abc"), "other": list("xy")},
    )
    with pytest.raises(BrokenImageError):
        run(tmp_path / name, both, shard_size=300)
    run(tmp_path / name, shard_size=300)
    assert set(read_features(tmp_path / name).labels) == {"class"}


def test_only_shards_of_its_own_are_removed(tmp_path):
    parts = tmp_path / "x.npz.parts"

    def added_meanwhile(source, row):
        (parts / "features-own.npz").write_text("mine")
        return source.image(row)

    run(tmp_path / "x.npz", made=dataclasses.replace(encoder()[0], prepare=added_meanwhile))
    assert [path.name for path in parts.iterdir()] == ["features-own.npz"]
    before = contents_below(tmp_path)
    with pytest.raises(ValueError, match=r"x\.npz\.parts holds other files: move them away"):
        run(tmp_path / "x.npz")
    assert contents_below(tmp_path) == before


def test_parts_of_other_images_beside_a_whole_file_stay(tmp_path):
    run(tmp_path / "x.npz")
    run(tmp_path / "parts", title="other").files[0].parent.rename(tmp_path / "x.npz.parts")
    before = contents_below(tmp_path)
    with pytest.raises(ValueError, match=r"x\.npz\.parts holds other features: images was other and is now toy"):
        run(tmp_path / "x.npz")
    assert contents_below(tmp_path) == before


def test_others_files_stay_where_no_image_can_be_read(tmp_path):
    (shard,) = run(tmp_path / "out", images(6)).files
    shard.unlink()
    (tmp_path / "out" / "features-own.npz").write_text("mine")
    with pytest.raises(ValueError, match="none of the 6 images"):
        run(tmp_path / "out", images(6, broken=range(6)), broken=BrokenFiles(1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features-own.npz"]


@pytest.mark.parametrize("damage", [lambda content: content[:-200], lambda content: b"", lambda content: content[:99]])
def test_a_damaged_shard_is_embedded_again(tmp_path, damage, capsys):
    made, prepared = encoder()
    shard = run(tmp_path / "out", made=made, shard_size=300).files[1]
    shard.write_bytes(damage(shard.read_bytes()))
    prepared.clear()
    run(tmp_path / "out", made=made, shard_size=300)
    assert sorted(prepared) == list(range(300, 600))
    assert "features-00001-of-00003.npz is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(read_features(tmp_path / "out").features, expected_features())


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_images_that_vanish_stop_the_work_and_whole_shards_are_kept(tmp_path, name):
    made, prepared = encoder()

    def vanished(source, row):
        if row >= 450:
            raise FileNotFoundError(2, "No such file or directory", f"photos/{row}.png")
        return made.prepare(source, row)

    with pytest.raises(FileNotFoundError, match=r"photos/\d+\.png"):
        run(tmp_path / name, made=dataclasses.replace(made, prepare=vanished), shard_size=200, broken=BrokenFiles(1))
    prepared.clear()
    assert run(tmp_path / name, made=made, shard_size=200).readable == N
    assert sorted(prepared) == list(range(400, N))


def test_another_process_that_writes_to_the_output_is_not_disturbed(tmp_path):
    with files.locked(tmp_path), pytest.raises(BlockingIOError, match="in use by another process"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [files.LOCK]


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, name, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    run(tmp_path / "out", shard_size=300)
    (tmp_path / "out" / ".features-00002-of-00003.npz.123").write_text("part")
    run(tmp_path / "out", shard_size=300)
    assert not list((tmp_path / "out").glob(".features*"))


@pytest.mark.parametrize(
    ("labels", "flag"),
    [({"id": np.arange(6), "class": np.arange(6) % 2}, "--tasks=class"), ({"id": [0, 0, 1, 1, 2, 2]}, "--nolabels")],
)
def test_labels_that_could_not_be_analyzed_are_refused_first(tmp_path, labels, flag):
    names = {"id": list("abcdef"), "class": ["x", "y"]}
    labels = {task: np.asarray(values) for task, values in labels.items()}
    source = dataclasses.replace(images(6), labels=labels, class_names={task: names[task] for task in labels})
    made, prepared = encoder()
    with pytest.raises(ValueError, match=f"of the 6 classes of task 'id' have fewer than two images.*{flag}"):
        run(tmp_path / "out", source, made)
    assert prepared == list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.csv", "x.h5"])
def test_an_output_of_another_format_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}: features are written to a file that ends in \.npz, or to a folder"):
        run(tmp_path / name)


@pytest.mark.parametrize("name", ["notes.txt", "embedding.json"])
def test_a_folder_of_other_files_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("[1]")
    with pytest.raises(ValueError, match="holds other files"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_broken_images_are_left_out_and_named_once(tmp_path, capsys):
    source = images(20, broken=(0, 7, 19))
    made = run(tmp_path / "x.npz", source, broken=BrokenFiles(0.15))
    assert (made.readable, made.images) == (17, 20)
    with np.load(tmp_path / "x.npz") as arrays:
        assert json.loads(str(arrays["embedding"]))["broken"] == {"images": 3, "share": 0.15}
    back = read_features(tmp_path / "x.npz")
    rows = np.setdiff1d(np.arange(20), source.broken)
    np.testing.assert_array_equal(back.features, source.images[rows].reshape(17, -1)[:, :6])
    np.testing.assert_array_equal(back.labels["class"], rows % 3)
    named = [line for line in capsys.readouterr().err.splitlines() if line.startswith("broken image")]
    assert len(named) == 3
    with pytest.raises(BrokenImageError, match="image 0"):
        run(tmp_path / "y.npz", source, broken=BrokenFiles(0))


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_more_broken_images_than_allowed_stop_the_work_and_whole_shards_are_kept(tmp_path, name):
    """Also where earlier runs met some of them."""
    made, prepared = encoder()
    source = images(broken=(1, *range(500, 507)))
    for _ in range(2):
        with pytest.raises(BrokenImageError, match=r"8 of 700 images cannot be decoded.*broken=0\.012 or more"):
            run(tmp_path / name, source, made, shard_size=300)
    prepared.clear()
    assert run(tmp_path / name, source, made, shard_size=300, broken=BrokenFiles(0.02)).readable == N - 8
    assert min(prepared) == 300


@pytest.mark.parametrize("name", ["z", "z.npz"])
def test_images_that_cannot_be_read_can_be_repaired(tmp_path, name):
    for share, message in ((1, "none of the 6 images of toy can be read"), (0.01, "6 of 6 images cannot be decoded")):
        with pytest.raises((BrokenImageError, ValueError), match=message):
            run(tmp_path / name, images(6, broken=range(6)), broken=BrokenFiles(share))
        assert list(tmp_path.iterdir()) == []
    assert run(tmp_path / name, images(6)).readable == 6


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
    assert re.fullmatch("[0-9a-f]{16}", record.pop("names"))
    assert record.pop("image_files") == images().fingerprint()
    assert record.pop("broken") == {"images": 0, "share": 0.0}
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
