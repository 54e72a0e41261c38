"""One view's distribution and the set of views: shapes, keys, ranges, devices."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_sample_images

from dnc.data.views.augment import Augmentation, Views
from dnc.data.views.transforms import random_box

EVERYTHING = Augmentation(blur=0.5, solarize=0.2)
CROP_ALONE = Augmentation(flip=0.0, jitter_probability=0.0, gray=0.0, crop_scale=(0.2, 1.0))

PAIR = Views((EVERYTHING, EVERYTHING))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Eight cuttings of 24 x 24 pixels of two photographs."""
    cuttings = [
        image[top : top + 192 : 8, 100:292:8] for image in load_sample_images().images for top in range(0, 200, 50)
    ]
    return np.stack(cuttings).astype(np.float32) / 255


@functools.cache
def jitted(views: Views):
    return jax.jit(views)


def keys_of(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def test_views_are_independent_in_range_and_keyed_by_example(photographs):
    images = jnp.broadcast_to(photographs[0], photographs.shape)
    keys = keys_of(8)
    views = np.asarray(jitted(PAIR)(keys, images)["views"])
    flat = views.reshape(16, -1)
    distances = np.abs(flat[:, None] - flat[None]).max(axis=-1)
    assert np.all(distances[~np.eye(16, dtype=bool)] > 0.05)
    assert flat.min() >= 0
    assert flat.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.asarray(jitted(PAIR)(keys[::-1], images)["views"])[:, ::-1], views, atol=1e-6)


def test_every_view_has_its_own_augmentation_and_local_views_their_own_size(photographs):
    nothing = Augmentation(crop_scale=(20.0, 20.0), flip=0.0, jitter_probability=0.0, gray=0.0)
    mirror = Augmentation(crop_scale=(20.0, 20.0), flip=1.0, jitter_probability=0.0, gray=0.0)
    small = Augmentation(crop_scale=(0.05, 0.4), size=10, flip=0.0, jitter_probability=0.0, gray=1.0)
    shown = jitted(Views((nothing, mirror, nothing), (small, small)))(keys_of(8), photographs)
    assert shown["views"].shape == (3, 8, 24, 24, 3)
    np.testing.assert_allclose(shown["views"][0], photographs, atol=1e-6)
    np.testing.assert_allclose(shown["views"][1], photographs[:, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(shown["views"][2], photographs, atol=1e-6)
    first, second = np.asarray(shown["local_views"])
    assert first.shape == (8, 10, 10, 3)
    np.testing.assert_allclose(first[..., 0], first[..., 2], atol=1e-6)
    assert np.all(np.abs(first - second).max(axis=(1, 2, 3)) > 0.01)


def test_transforms_are_applied_with_their_probabilities(photographs):
    """Each leaves a trace that can be told: three equal channels, inverted bright values, a mirrored ramp."""
    ramp = np.broadcast_to(np.linspace(0.0, 0.4, 12, dtype=np.float32)[None, :, None], (12, 12, 3))
    image = jnp.asarray(ramp * np.float32([1.0, 0.8, 0.6]) + np.float32([0.6, 0.0, 0.0]))
    augmentation = Augmentation(
        crop_scale=(20.0, 20.0), flip=0.3, jitter_probability=0.0, gray=0.6, blur=0.0, solarize=0.8
    )
    shown = np.asarray(jax.jit(jax.vmap(augmentation, (0, None)))(keys_of(3_000), image))
    gray = np.ptp(shown, axis=-1).max(axis=(1, 2)) < 1e-6
    mirrored = shown[:, 0, 0, 1] > shown[:, 0, -1, 1]  # green never reaches the threshold
    solarized = shown[:, :, :, 0].max(axis=(1, 2)) < 0.5
    assert gray.mean() == pytest.approx(0.6, abs=0.04)
    assert mirrored[~gray].mean() == pytest.approx(0.3, abs=0.05)
    assert solarized[~gray].mean() == pytest.approx(0.8, abs=0.05)


def test_crops_are_drawn_in_each_images_original_size():
    """Of a ramp over the width, a crop shows a span that is its box's share of the original's width."""
    canvas = jnp.broadcast_to((jnp.arange(32.0) / 32)[None, None, :, None], (8, 32, 32, 3))
    originals = jnp.array([[32, 32], [400, 100], [100, 400], [333, 500]] * 2)
    keys = keys_of(8)
    (views,) = np.asarray(jitted(Views((CROP_ALONE,)))(keys, canvas, originals)["views"])
    crop_keys = jax.vmap(lambda key: jax.random.split(jax.random.split(key, 1)[0], 6)[0])(keys)
    boxes = jax.jit(jax.vmap(lambda k, size: random_box(k, size[0], size[1], CROP_ALONE.crop_scale)))(
        crop_keys, originals
    )
    spans = (views[:, 16, 20, 0] - views[:, 16, 12, 0]) * 32 / 8  # away from the edges
    np.testing.assert_allclose(spans, np.asarray(boxes[:, 3] / originals[:, 1]), atol=1e-4)
    assert np.all(np.abs(boxes[:, 3] / boxes[:, 2] - 1) < 0.6)


def test_sharded_views_equal_unsharded_ones_and_no_device_talks_to_another(photographs):
    """Two programs that are fused, and so rounded, differently: nothing may turn that into another picture."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    arguments = keys_of(8), jnp.asarray(photographs)
    sharded = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec("data")))
    program = jitted(PAIR).lower(*sharded).compile()
    expected, actual = jitted(PAIR)(*arguments)["views"], program(*sharded)["views"]
    assert actual.sharding.num_devices == 8
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    text = program.as_text()
    assert "num_partitions=8" in text
    assert not re.findall(r"(?:all-gather|all-to-all|all-reduce|collective-permute)(?:-start)?\(", text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(flip=1.5), r"augmentation\.flip=1\.5: give a probability"),
        (dict(blur=-0.1), r"augmentation\.blur=-0\.1: give a probability"),
        (dict(gray=float("nan")), r"augmentation\.gray=nan: give a probability"),
        (dict(crop_scale=(1.0, 0.2)), r"augmentation\.crop_scale=\(1\.0, 0\.2\): give \(low, high\)"),
        (dict(crop_ratio=(0.0, 1.0)), r"augmentation\.crop_ratio=\(0\.0, 1\.0\)"),
        (dict(jitter=(0.4, -0.4, 0.4, 0.1)), r"augmentation\.jitter=\(0\.4, -0\.4, 0\.4, 0\.1\): give \(brightness"),
        (dict(jitter=(0.4, 0.4, 0.4, 0.6)), "hue at most 0.5"),
        (dict(crop_method="cubic"), r"augmentation\.crop_method='cubic' is not known: did you mean 'bicubic'"),
        (dict(size=0), r"augmentation\.size=0"),
        (dict(blur_kernel=4), r"augmentation\.blur_kernel=4: give an odd number"),
    ],
)
def test_fields_that_have_no_meaning_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**fields)


def test_views_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="global_views have sizes"):
        Views((Augmentation(size=8), Augmentation(size=9)))
    with pytest.raises(ValueError, match="at least one"):
        Views(())
