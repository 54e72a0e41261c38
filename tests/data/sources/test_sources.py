import inspect
import re
import textwrap

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from dnc.data.images import ImageTraining
from dnc.data.sources import arrays as sources
from dnc.data.sources import by_name
from dnc.data.sources.base import ImageSource
from dnc.data.views.recipes import choose_views


def arrays(n: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"images": rng.integers(0, 256, (n, 4, 5, 3), np.uint8), "labels": np.arange(n) % 3}


@pytest.fixture(scope="module")
def digits() -> dict[str, sources.ArrayImages]:
    return sources.load_digits()


def test_digits_are_split_into_a_balanced_test_set_and_the_rest(digits):
    assert {split: len(images) for split, images in digits.items()} == {"train": 1197, "test": 600}
    np.testing.assert_array_equal(np.bincount(digits["test"].labels["digit"]), 60)
    assert digits["train"].images.shape == (1197, 32, 32, 3)
    assert digits["train"].images.dtype == np.uint8
    np.testing.assert_array_equal(digits["test"].images, np.repeat(digits["test"].images[..., :1], 3, axis=-1))
    assert digits["test"].class_names == {"digit": [str(digit) for digit in range(10)]}


def test_digits_splits_are_disjoint_and_together_the_whole_set():
    native = sources.load_digits(resolution=8)
    rows = np.concatenate([native[split].images[..., 0].reshape(-1, 64) for split in ("train", "test")])
    original = datasets.load_digits().images.reshape(-1, 64)
    expected = np.round(original * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_digits_are_the_same_in_every_call(digits):
    again = sources.load_digits()
    for split in digits:
        np.testing.assert_array_equal(again[split].images, digits[split].images)
        np.testing.assert_array_equal(again[split].labels["digit"], digits[split].labels["digit"])


def test_upsampling_is_bilinear_as_pillow_does_it(digits):
    native = sources.load_digits(resolution=8)["train"].images[:20, ..., 0]
    for small, large in zip(native, digits["train"].images[:20, ..., 0], strict=True):
        expected = np.asarray(Image.fromarray(small).resize((32, 32), Image.Resampling.BILINEAR), np.int64)
        np.testing.assert_allclose(large.astype(np.int64), expected, atol=1)  # pillow rounds its input to 8 bits


@pytest.mark.parametrize("arguments", [{"resolution": 7}, {"test_per_class": 0}, {"test_per_class": 174}])
def test_digits_refuse_settings_that_have_no_meaning(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} = {arguments[name]}"):
        sources.load_digits(**arguments)


def test_npz_with_one_task_and_no_names(tmp_path):
    np.savez(tmp_path / "set.npz", **arrays())
    loaded = sources.load_npz(tmp_path / "set.npz")
    np.testing.assert_array_equal(loaded.images, arrays()["images"])
    np.testing.assert_array_equal(loaded.labels["class"], arrays()["labels"])
    assert loaded.class_names == {"class": ["0", "1", "2"]}


def test_npz_without_labels_is_taken_where_they_are_not_wanted(tmp_path):
    np.savez(tmp_path / "labeled.npz", **arrays(), class_names=np.array(["a", "b", "c"]))
    np.savez(tmp_path / "plain.npz", images=arrays()["images"])
    for name in ("labeled.npz", "plain.npz"):
        loaded = by_name.open_images(str(tmp_path / name), tasks=())
        assert len(loaded) == 6
        assert loaded.labels == {} == loaded.class_names
    with pytest.raises(ValueError, match=r"add one per task, or leave labels out .*--nolabels"):
        by_name.open_images(str(tmp_path / "plain.npz"))


def test_npz_with_several_named_tasks(tmp_path):
    content = arrays()
    np.savez(
        tmp_path / "set.npz",
        images=content["images"],
        labels_animal=content["labels"],
        labels_is_pet=np.arange(6) % 2,
        class_names_animal=["cat", "dog", "eel"],
    )
    loaded = sources.load_npz(tmp_path / "set.npz")
    assert loaded.class_names == {"animal": ["cat", "dog", "eel"], "is_pet": ["0", "1"]}
    np.testing.assert_array_equal(loaded.labels["is_pet"], np.arange(6) % 2)


def test_npz_gray_images_are_repeated_over_three_channels(tmp_path):
    np.savez(tmp_path / "set.npz", images=arrays()["images"][..., 0], labels=arrays()["labels"])
    images = sources.load_npz(str(tmp_path / "set.npz")).images
    np.testing.assert_array_equal(images, np.repeat(arrays()["images"][..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": np.zeros((6, 4, 5, 3), np.float32)}, "dtype float32: give uint8"),
        ({"images": np.zeros((6, 4, 5, 4), np.uint8)}, r"shape \(6, 4, 5, 4\)"),
        ({"images": np.zeros((0, 4, 5, 3), np.uint8)}, r"shape \(0, 4, 5, 3\)"),
        ({"labels": np.zeros(6)}, "dtype float64"),
        ({"labels": np.array(list("abcabc"))}, "dtype <U1"),
        ({"labels": np.arange(5)}, r"shape \(5,\) for 6 images"),
        ({"labels": np.zeros(6, int)}, "between two or more"),
        ({"labels": np.array([0, 1, -2, 2, 1, 0])}, "the first is -2 at row 2"),
        ({"class_names": np.array(["a", "b"])}, "the first is 2 at row 2"),
        ({"class_names": np.array(["a", "b", "a"])}, r"repeat \['a'\]"),
        ({"class_names_other": np.array(["a", "b"])}, "same keys"),
        ({"labels": np.array([0, 1, 2, 0, 1, None])}, "pickled"),
    ],
)
def test_npz_with_bad_content_is_refused_with_the_reason(tmp_path, change, message):
    content = {name: array for name, array in (arrays() | change).items() if array is not None}
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(ValueError, match=message):
        sources.load_npz(tmp_path / "set.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 truncated"])
def test_a_file_that_is_no_npz_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"set\.npz is not a readable \.npz file"):
        sources.load_npz(path)


def test_a_single_npy_array_is_refused(tmp_path):
    np.save(tmp_path / "set.npy", arrays()["images"])
    with pytest.raises(ValueError, match="single array"):
        sources.load_npz(tmp_path / "set.npy")


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        sources.load_npz(tmp_path / "none.npz")


def test_there_is_a_caption_for_each_image_or_none():
    images, labels, names = np.zeros((3, 4, 4, 3), np.uint8), {"class": np.array([0, 1, 0])}, {"class": ["a", "b"]}
    assert sources.ArrayImages(images, labels, names).captions is None
    assert sources.ArrayImages(images, labels, names, ["x", "y", "z"]).captions == ["x", "y", "z"]
    with pytest.raises(ValueError, match="2 captions for 3 images"):
        sources.ArrayImages(images, labels, names, ["x", "y"])


def test_the_documented_source_of_ones_own_trains(key):
    """The example of `ImageSource`, as it stands there: four members, and defaults for the rest."""
    blocks = re.findall(r"((?:^ {4}.*\n|\n)+)", inspect.getdoc(ImageSource) + "\n", re.MULTILINE)
    scope = {"np": np, "ImageSource": ImageSource}
    exec("".join(map(textwrap.dedent, blocks)), scope)
    data = ImageTraining(*scope["stripes"](train=8, test=4), choose_views(), held_out_examples=2)
    views = jax.jit(data.make_views)(jax.tree.map(lambda x: np.stack([x]), data.source()[3]), key)
    assert views["views"].shape == (2, 1, 32, 32, 3)
    assert {task: labels.tolist() for task, labels in data.held_out()[1].items()} == {"direction": [0, 1]}
    assert (data.test.captions, data.test.name(1), data.side) == (None, "image 1", 32)
