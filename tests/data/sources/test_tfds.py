import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets.public_api as tfds
from array_record.python import array_record_module
from ml_collections import ConfigDict
from PIL import Image

from dnc.data.multitask import render as multitask
from dnc.data.multitask import tfds_builder
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.tfds import TfdsImages
from dnc.training.build import make_data

SETTINGS = {"image_size": 16, "train_examples": 40, "test_renders": 1, "seed": 3}


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> tfds_builder.MultitaskShapes:
    return tfds_builder.prepare(tmp_path_factory.mktemp("tfds"), **SETTINGS)


def read_all(builder: tfds_builder.MultitaskShapes, split: str) -> dict[str, np.ndarray]:
    dataset = tfds_builder.read(builder, split)
    return dataset.batch(len(dataset))[0]


def test_train_pixels_and_labels_are_the_renderers(builder):
    stored = read_all(builder, "train")
    index = jnp.arange(40)
    factors = builder.settings.images.factors(index)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(jax.random.key(3), 2**31 + 1), index)
    expected = multitask.to_uint8(multitask.render_batch(keys, factors, 16))
    assert stored["image"].dtype == np.uint8
    np.testing.assert_array_equal(stored["image"], expected)
    for factor in multitask.FACTORS:
        np.testing.assert_array_equal(stored[factor], factors[factor])


def test_test_split_is_the_held_out_factorial(builder):
    stored = read_all(builder, "test")
    images, factors = builder.settings.images.held_out()
    np.testing.assert_array_equal(stored["image"], images)
    for factor in multitask.FACTORS:
        np.testing.assert_array_equal(stored[factor], factors[factor])
    cells = np.stack([stored[factor] for factor in multitask.FACTORS], axis=1)
    assert len(np.unique(cells, axis=0)) == len(cells) == np.prod([len(k) for k in multitask.FACTORS.values()])


def test_shuffled_batches_hold_every_example_once(builder):
    dataset = tfds_builder.read(builder, "train")
    batches = list(dataset.shuffle(seed=0).batch(8))
    assert [batch["image"].shape for batch in batches] == [(8, 16, 16, 3)] * 5
    shuffled = np.concatenate([batch["image"] for batch in batches]).reshape(40, -1)
    stored = read_all(builder, "train")["image"].reshape(40, -1)
    assert not np.array_equal(shuffled, stored)
    np.testing.assert_array_equal(np.unique(shuffled, axis=0), np.unique(stored, axis=0))


def test_images_are_stored_as_png_in_array_record_files(builder):
    (path,) = builder.info.splits["train"].filepaths
    assert "array_record" in path.name
    reader = array_record_module.ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    assert len(records) == 40
    assert all(b"\x89PNG\r\n" in record for record in records)


def test_a_smaller_data_set_is_the_beginning_of_a_larger_one(builder):
    config = tfds_builder.MultitaskShapesConfig(image_size=16, train_examples=10, seed=3)
    ((images, _),) = tfds_builder.train_blocks(config)
    np.testing.assert_array_equal(images, read_all(builder, "train")["image"][:10])


def test_other_settings_go_to_another_folder(builder):
    other = tfds_builder.MultitaskShapesConfig(**(SETTINGS | {"seed": 4}))
    assert other.name != builder.settings.name
    assert builder.settings.name in str(builder.data_path)


@pytest.mark.parametrize("field", ["image_size", "train_examples", "test_renders"])
def test_settings_below_one_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} = 0"):
        tfds_builder.MultitaskShapesConfig(**{field: 0})


PREPARE_AND_READ = """
import sys
from dnc.data.multitask import tfds_builder
builder = tfds_builder.prepare(sys.argv[1], image_size=16, train_examples=40, test_renders=1, seed=3)
batch = tfds_builder.read(builder, "train").shuffle(seed=0).batch(4)[0]
assert batch["image"].shape == (4, 16, 16, 3)
assert "tensorflow" not in sys.modules
"""


def test_writing_and_reading_import_no_tensorflow(tmp_path):
    subprocess.run([sys.executable, "-c", PREPARE_AND_READ, tmp_path], check=True)


def test_the_local_builder_is_an_image_source(builder):
    source = TfdsImages(f"multitask_shapes/{builder.settings.name}", "test", data_dir=builder.data_path.parents[2])
    images, factors = builder.settings.images.held_out()
    assert source.class_names == {factor: list(names) for factor, names in multitask.FACTORS.items()}
    np.testing.assert_array_equal(source.image(5), images[5])
    for factor in multitask.FACTORS:
        np.testing.assert_array_equal(source.labels[factor], factors[factor])


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("DNC_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("cifar10", "run `tfds build cifar10 --file_format=array_record --data_dir="),
        ("imagenet_resized/64x64", "run `tfds build imagenet_resized/64x64 "),
        ("cifar11", "did you mean 'cifar10"),
        ("imagenet_resized/3x3", "not known to TFDS"),
    ],
)
def test_a_data_set_that_is_not_there_is_an_error_with_the_way_to_it(data_dir, dataset, message):
    with pytest.raises(FileNotFoundError, match=message):
        TfdsImages(dataset, "train", data_dir=data_dir / "tfds")


def test_wrong_splits_and_tasks_are_refused(builder):
    where = {"dataset": f"multitask_shapes/{builder.settings.name}", "data_dir": builder.data_path.parents[2]}
    with pytest.raises(
        ValueError, match=r"multitask.*: split='validation' is not known: choose one of \['test', 'train'\]"
    ):
        TfdsImages(split="validation", **where)
    with pytest.raises(ValueError, match=r"task='colr' is not known: did you mean 'color'"):
        TfdsImages(split="test", tasks=["colr"], **where)
    assert TfdsImages(split="test[:7]", tasks=(), **where).labels == {}
    assert len(TfdsImages(split="test[:7]", **where).labels["color"]) == 7


class Photos(tfds.core.GeneratorBasedBuilder):
    """Images of several sizes, one split without labels, as in STL-10."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["a", "b"])}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": self._generate_examples([0, 1]), "unlabeled": self._generate_examples([-1, -1, -1])}

    def _generate_examples(self, labels):
        for index, label in enumerate(labels):
            yield index, {"image": Image.new("RGB", (4 + index, 4)), "label": label}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    Photos(data_dir=folder, file_format="array_record").download_and_prepare(file_format="array_record")
    return folder


def test_images_of_several_sizes_and_a_split_without_labels(photos, data_dir):
    train = TfdsImages("photos", "train", data_dir=photos)
    assert (train.shape, train.image(1).shape, train.picture(1, 2)[1]) == (None, (4, 5, 3), (4, 5))
    np.testing.assert_array_equal(train.labels["label"], [0, 1])
    unlabeled = TfdsImages("photos", "unlabeled", data_dir=photos)
    assert (len(unlabeled), unlabeled.labels, unlabeled.class_names) == (3, {}, {})
    with pytest.raises(ValueError, match="several sizes"):
        train.in_memory()


def test_another_format_is_refused_with_the_way_out(photos, tmp_path):
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "photos/1.0.0/dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="prepared as tfrecord, which has no random access"):
        TfdsImages("photos", "train", data_dir=tmp_path)


@pytest.mark.parametrize("feature", ["core.features.image_feature.Image", "core.features.features_dict.FeaturesDict"])
def test_code_that_a_data_set_names_is_not_run(photos, tmp_path, monkeypatch, feature):
    shutil.copytree(photos / "photos", tmp_path / "strange")  # a name that TFDS has no builder for
    path = tmp_path / "strange/1.0.0/features.json"
    assert f"tensorflow_datasets.{feature}" in path.read_text()
    path.write_text(path.read_text().replace(f"tensorflow_datasets.{feature}", "authors_own.Feature"))
    (tmp_path / "authors_own.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    before = tfds.features.FeatureConnector.cls_from_name
    with pytest.raises(
        ValueError, match=r"dataset='strange' in .* names 'authors_own\.Feature', code that is not of TFDS"
    ):
        TfdsImages("strange", "train", data_dir=tmp_path)
    assert "authors_own" not in sys.modules
    assert tfds.features.FeatureConnector.cls_from_name == before


def test_collections_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'huggingface:mnist' names the collection 'huggingface'"):
        TfdsImages("huggingface:mnist", "train", data_dir=tmp_path)


def test_what_changes_when_the_records_do(photos, tmp_path):
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    first = TfdsImages("photos", "train", data_dir=tmp_path).fingerprint()
    assert TfdsImages("photos", "train", data_dir=tmp_path).fingerprint() == first
    os.utime(next(tmp_path.glob("photos/1.0.0/*train*")), ns=(0, 0))
    assert TfdsImages("photos", "train", data_dir=tmp_path).fingerprint() != first


def test_labels_are_read_once_and_a_damaged_file_of_them_is_replaced(photos, data_dir):
    np.testing.assert_array_equal(TfdsImages("photos", "train", data_dir=photos).labels["label"], [0, 1])
    (file,) = (data_dir / "labels").iterdir()
    np.savez(file, label=np.array([1, 1], np.int32))
    np.testing.assert_array_equal(TfdsImages("photos", "train", data_dir=photos).labels["label"], [1, 1])
    file.write_bytes(b"damaged")
    np.testing.assert_array_equal(TfdsImages("photos", "train", data_dir=photos).labels["label"], [0, 1])


def test_a_config_names_a_data_set(photos, data_dir, builder):
    entries = {"name": "tfds", "augmentation": {}, "test": "train", "data_dir": str(photos)}
    data = make_data(ConfigDict(entries | {"dataset": "photos", "train": "unlabeled", "image_size": 4}))
    assert isinstance(data.train, TfdsImages)
    assert (len(data.source()), data.source()[1]["labels"], list(data.class_names)) == (3, {}, ["label"])
    assert data.source()[1]["size"].tolist() == [4, 5]
    shapes = {"dataset": f"multitask_shapes/{builder.settings.name}", "data_dir": str(builder.data_path.parents[2])}
    data = make_data(ConfigDict(entries | shapes | {"train": "test", "test": "test", "tasks": ["color"]}))
    assert isinstance(data.train, ArrayImages)
    np.testing.assert_array_equal(data.held_out()[0], builder.settings.images.held_out()[0])
