import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python import array_record_module

from dnc.data import multitask, tfds_builder

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


def test_class_names_are_stored(builder):
    for factor, names in multitask.FACTORS.items():
        assert tuple(builder.info.features[factor].names) == tuple(names)


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
from dnc.data import tfds_builder
builder = tfds_builder.prepare(sys.argv[1], image_size=16, train_examples=40, test_renders=1, seed=3)
batch = tfds_builder.read(builder, "train").shuffle(seed=0).batch(4)[0]
assert batch["image"].shape == (4, 16, 16, 3)
assert "tensorflow" not in sys.modules
"""


def test_writing_and_reading_import_no_tensorflow(tmp_path):
    subprocess.run([sys.executable, "-c", PREPARE_AND_READ, tmp_path], check=True)
