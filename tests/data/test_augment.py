"""Augmentations against Pillow, by hand, and as distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from dnc.data import augment
from dnc.data.augment import Augmentation


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg")).resize((48, 48), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 255.0


def pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(image * 255).astype(np.uint8))


def test_grayscale_is_pillows_luma(photograph):
    expected = np.asarray(pillow(photograph).convert("L"), np.float32) / 255
    actual = augment.grayscale(jnp.asarray(photograph))
    for channel in range(3):
        np.testing.assert_allclose(actual[..., channel], expected, atol=1.01 / 255)


def test_solarise_is_pillows(photograph):
    expected = np.asarray(ImageOps.solarize(pillow(photograph), 128), np.float32) / 255
    actual = augment.solarise(jnp.asarray(np.asarray(pillow(photograph)) / 255, jnp.float32), threshold=128 / 255)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("enhancer", "position"), [("Brightness", 0), ("Contrast", 1), ("Color", 2)])
def test_jitter_of_one_kind_is_a_pillow_enhancement_by_some_factor(photograph, enhancer, position):
    strengths = [0.0, 0.0, 0.0, 0.0]
    strengths[position] = 0.6
    actual = np.asarray(augment.color_jitter(jax.random.key(3), jnp.asarray(photograph), *strengths))
    enhance = getattr(ImageEnhance, enhancer)(pillow(photograph)).enhance
    errors = [
        np.abs(np.asarray(enhance(factor), np.float32) / 255 - actual).mean() for factor in np.linspace(0.4, 1.6, 241)
    ]
    assert min(errors) < 1.5 / 255
    assert np.abs(actual - photograph).mean() > 0.005


@pytest.mark.parametrize("turn", [0.0, 0.1, -0.25, 0.5])
def test_hue_shift_is_a_turn_of_pillows_hsv(photograph, turn):
    hsv = np.asarray(pillow(photograph).convert("HSV")).copy()
    hsv[..., 0] = np.round(hsv[..., 0] + turn * 255).astype(int) % 256
    expected = np.asarray(_rgb(hsv), np.float32) / 255
    actual = augment.shift_hue(jnp.asarray(photograph), jnp.asarray(turn, jnp.float32))
    assert np.abs(actual - expected).mean() < 2.5 / 255


def _rgb(hsv: np.ndarray) -> Image.Image:
    return Image.merge("HSV", [Image.fromarray(np.ascontiguousarray(hsv[..., c])) for c in range(3)]).convert("RGB")


def test_no_jitter_leaves_the_image(photograph):
    actual = augment.color_jitter(jax.random.key(0), jnp.asarray(photograph), 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(actual, photograph, atol=1e-5)


def test_crop_of_everything_is_the_image(photograph):
    square = augment.random_resized_crop(jax.random.key(0), jnp.asarray(photograph), (20.0, 20.0))
    np.testing.assert_allclose(square, photograph, atol=1e-5)


def test_crop_is_pillows_resize_of_a_box():
    """On a smooth picture x -> value, a crop shows a shorter range of values, within the picture's."""
    ramp = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 64)[None, :, None], (64, 64, 3))
    crops = jax.vmap(lambda key: augment.random_resized_crop(key, ramp, (0.2, 0.5)))(
        jax.random.split(jax.random.key(0), 200)
    )
    shares = np.asarray(crops[:, 32, -1, 0] - crops[:, 32, 0, 0])
    assert shares.min() > 0.35  # sqrt(0.2 * 3/4) = 0.39, less half a pixel a side
    assert shares.max() < 0.83  # sqrt(0.5 * 4/3) = 0.82
    slopes = np.diff(np.asarray(crops[:, 32, 4:-4, 0]), axis=1)
    np.testing.assert_allclose(slopes, np.broadcast_to(slopes.mean(1, keepdims=True), slopes.shape), atol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_scipys_gaussian_filter_of_the_same_radius(photograph, sigma):
    actual = augment.gaussian_blur(jax.random.key(1), jnp.asarray(photograph), (sigma, sigma))
    expected = ndimage.gaussian_filter(photograph, (sigma, sigma, 0), mode="mirror", radius=(2, 2, 0))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_blur_keeps_constants():
    constant = jnp.full((48, 48, 3), 0.3)
    np.testing.assert_allclose(augment.gaussian_blur(jax.random.key(1), constant), constant, atol=1e-6)


def test_flip_mirrors_half_of_the_images():
    image = jnp.arange(27.0).reshape(3, 3, 3) / 27
    keys = jax.random.split(jax.random.key(0), 400)
    flipped = jax.vmap(augment.random_flip, (0, None))(keys, image)
    mirrored = np.all(np.asarray(flipped) == np.asarray(image[:, ::-1]), axis=(1, 2, 3))
    same = np.all(np.asarray(flipped) == np.asarray(image), axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert 0.4 < mirrored.mean() < 0.6


def test_two_views_are_independent_in_range_and_keyed_by_example(photograph):
    augmentation = Augmentation(blur=0.5, solarise=0.2)
    images = jnp.broadcast_to(photograph, (6, *photograph.shape))
    keys = jax.random.split(jax.random.key(0), 6)
    views = jax.jit(augmentation.two_views)(keys, images)
    flat = np.asarray(views).reshape(12, -1)
    distances = np.abs(flat[:, None] - flat[None]).max(axis=-1)
    assert np.all(distances[~np.eye(12, dtype=bool)] > 0.05)
    assert flat.min() >= 0
    assert flat.max() <= 1 + 1e-6
    np.testing.assert_allclose(jax.jit(augmentation.two_views)(keys[::-1], images)[:, ::-1], views, atol=1e-5)
