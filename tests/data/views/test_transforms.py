"""Image transforms against Pillow, colorsys, scipy and plain NumPy, on photographs."""

import colorsys
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats
from sklearn.datasets import load_sample_image

from dnc.data.views import transforms

BYTE = 1 / 255
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photograph(request) -> Image.Image:
    """427 x 640 pixels."""
    return Image.fromarray(load_sample_image(request.param))


@pytest.fixture(scope="module")
def small() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize((65, 48), Image.Resampling.BILINEAR)


# One compiled program for the eager operations of many tests.
resized_crop = jax.jit(transforms.resized_crop, static_argnames=("size", "method"))
adjust_colors = jax.jit(transforms.adjust_colors)
gaussian_blur = jax.jit(transforms.gaussian_blur, static_argnames="kernel")
shift_hue = jax.jit(transforms.shift_hue)


def planes(image: Image.Image) -> jax.Array:
    return jnp.asarray(np.moveaxis(np.asarray(image, np.float32) / 255, -1, 0))


def channels_last(image: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(image), 0, -1)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255


# Crops

BOXES = [(0, 0, 427, 640), (100, 200, 224, 224), (13, 7, 401, 333), (400, 600, 27, 40), (31.5, 20.25, 300.4, 99.7)]


def resized(image: Image.Image, size, method, box=None) -> np.ndarray:
    """Pillow's resize in floating point; on bytes it rounds and clips after each of its two passes."""
    channels = [
        Image.fromarray(channel).resize(size[::-1], PILLOW[method], box) for channel in np.asarray(planes(image))
    ]
    return np.clip(np.stack(channels), 0, 1)


@pytest.mark.parametrize("method", PILLOW)
@pytest.mark.parametrize("size", [(32, 32), (97, 61)])
def test_resized_crop_is_pillows_anti_aliased_resize_of_a_box(photograph, method, size):
    for box in BOXES:
        top, left, height, width = box
        corners = (left, top, left + width, top + height)
        actual = resized_crop(planes(photograph), jnp.array(box, jnp.float32), size, method)
        np.testing.assert_allclose(actual, resized(photograph, size, method, corners), atol=1.5e-5)
        in_bytes = pixels(photograph.resize(size[::-1], PILLOW[method], corners))
        assert np.abs(channels_last(actual) - in_bytes).mean() < 0.3 * BYTE


@pytest.mark.parametrize(("method", "reach"), [("bilinear", 1), ("bicubic", 2)])
def test_resized_crop_differs_from_a_crop_that_is_cut_out_first_at_its_border_alone(photograph, method, reach):
    expected = resized(photograph.crop((200, 100, 280, 164)), (128, 160), method)
    actual = np.asarray(resized_crop(planes(photograph), jnp.array([100.0, 200.0, 64.0, 80.0]), (128, 160), method))
    inside = np.s_[:, 2 * reach : -2 * reach, 2 * reach : -2 * reach]  # the box is enlarged twice
    np.testing.assert_allclose(actual[inside], expected[inside], atol=1.5e-5)
    assert np.abs(actual - expected).max() > 5 * BYTE


def torchvision_box(rng, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, one draw after the other."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(height - h + 1), rng.integers(width - w + 1), h, w
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@functools.partial(jax.jit, static_argnames="scale")
@functools.partial(jax.vmap, in_axes=(0, None, None, None))
def random_boxes(key, height, width, scale):
    return transforms.random_box(key, height, width, scale)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.08, 1.0)), (427, 640, (0.2, 1.0)), (500, 40, (0.3, 1.0)), (32, 32, (0.95, 1.0))],
)
def test_random_box_is_distributed_as_torchvisions(height, width, scale):
    rng, count = np.random.default_rng(0), 2_000
    expected = np.array([torchvision_box(rng, height, width, scale, (3 / 4, 4 / 3)) for _ in range(count)])
    actual = np.asarray(random_boxes(jax.random.split(jax.random.key(0), count), height, width, scale))
    assert np.all(actual[:, :2] >= 0)
    assert np.all(actual[:, 2:] >= 1)
    assert np.all(actual[:, :2] + actual[:, 2:] <= (height, width))
    for statistic in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] / np.maximum(1, height - box[:, 2]),
        lambda box: box[:, 1] / np.maximum(1, width - box[:, 3]),
    ):
        assert stats.ks_2samp(statistic(actual), statistic(expected)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(30, 30, (0, 0, 30, 30)), (100, 30, (30, 0, 40, 30)), (30, 101, (0, 30, 30, 40)), (30, 39, (0, 0, 30, 39))],
)
def test_a_box_that_never_fits_is_the_central_one(height, width, expected):
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(random_boxes(keys, height, width, (20.0, 20.0)), [expected] * 3)


@functools.partial(jax.jit, static_argnames="method")
@functools.partial(jax.vmap, in_axes=(0, None, None, None))
def random_crops(key, image, original, method):
    return transforms.random_resized_crop(key, image, (0.2, 1.0), size=48, original=original, method=method)


@pytest.mark.parametrize("method", PILLOW)
def test_a_crop_from_a_canvas_is_the_crop_from_the_original(photograph, method):
    size = jnp.array([photograph.height, photograph.width])
    canvas = photograph.resize((256, 256), Image.Resampling.BICUBIC)
    keys = jax.random.split(jax.random.key(0), 5)
    expected = random_crops(keys, planes(photograph), None, method)
    assert expected.shape == (5, 3, 48, 48)
    error = np.abs(np.asarray(random_crops(keys, planes(canvas), size, method) - expected)).mean()
    assert error < 2.5 * BYTE  # what a resize on the way costs
    as_if_square = random_crops(keys, planes(canvas), jnp.array(canvas.size), method)
    assert np.abs(np.asarray(as_if_square - expected)).mean() > 5 * error


def test_crop_of_everything_is_the_image(small):
    crop = jax.jit(lambda x: transforms.random_resized_crop(jax.random.key(0), x, (20.0, 20.0), ratio=(0.5, 2.0)))
    everything = crop(planes(small))
    np.testing.assert_allclose(everything, planes(small), atol=1e-6)


# Colors


def factors(**changes) -> jax.Array:
    return jnp.array([changes.get(name, 1.0) for name in ("brightness", "contrast", "saturation")])


@pytest.mark.parametrize(
    ("name", "enhancer"), [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")]
)
@pytest.mark.parametrize("factor", [0.0, 0.35, 1.0, 1.7])
def test_adjustments_are_pillows(small, name, enhancer, factor):
    expected = pixels(getattr(ImageEnhance, enhancer)(small).enhance(factor))
    actual = adjust_colors(planes(small), factors(**{name: factor}), jnp.arange(3))
    # Pillow rounds the gray values (and their mean) to bytes, the blend down.
    np.testing.assert_allclose(channels_last(actual), expected, atol=2.01 * BYTE)


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.37])
def test_hue_is_colorsys(small, turn):
    small = small.resize((16, 12))

    def turned(pixel):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)

    expected = np.apply_along_axis(turned, -1, np.asarray(small, np.float64) / 255)
    actual = shift_hue(planes(small), jnp.float32(turn))
    np.testing.assert_allclose(channels_last(actual), expected, atol=2e-6)


def test_hue_of_gray_black_and_pure_colors():
    colors = jnp.array([[0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).T
    turned = shift_hue(colors[:, None, :], jnp.float32(1 / 3))[:, 0].T
    expected = [[0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 1]]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def one_after_the_other(image: np.ndarray, amounts, turn, names) -> np.ndarray:
    """torchvision's adjust_brightness, ..._contrast, ..._saturation, ..._hue in the order of `names`."""
    for name in names:
        gray = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
        if name == "hue":
            hsv = np.apply_along_axis(lambda p: colorsys.rgb_to_hsv(*p), -1, image)
            hsv[..., 0] = (hsv[..., 0] + turn) % 1.0
            image = np.apply_along_axis(lambda p: np.array(colorsys.hsv_to_rgb(*p)), -1, hsv)
        else:
            other = {"brightness": 0.0, "contrast": gray.mean(), "saturation": gray}[name]
            image = np.clip(amounts[name] * image + (1 - amounts[name]) * other, 0, 1)
    return image


def test_adjustments_follow_each_other_in_every_order_clipped_between():
    image = np.random.default_rng(0).uniform(size=(5, 4, 3))
    amounts, turn = {"brightness": 1.5, "contrast": 1.6, "saturation": 0.4}, 0.17
    names = ("brightness", "contrast", "saturation")
    results = []
    for order in itertools.permutations(range(3)):
        for place in range(4):
            sequence = [names[kind] for kind in order]
            sequence.insert(place, "hue")
            expected = one_after_the_other(image, amounts, turn, sequence)
            x = jnp.asarray(np.moveaxis(image, -1, 0), jnp.float32)
            actual = adjust_colors(x, factors(**amounts), jnp.array(order), jnp.float32(turn), jnp.array(place))
            np.testing.assert_allclose(channels_last(actual), expected, atol=3e-6)
            results.append(expected)
    differences = [np.abs(a - b).max() for a, b in itertools.combinations(results, 2)]
    assert np.mean(np.array(differences) > 1e-3) > 0.9  # the order matters, so the comparison tells orders apart


def test_jitter_draws_amounts_and_order_uniformly(monkeypatch):
    drawn = lambda image, *arguments: arguments  # noqa: E731
    monkeypatch.setattr(transforms, "adjust_colors", drawn)
    keys = jax.random.split(jax.random.key(0), 12_000)
    draw = jax.jit(jax.vmap(lambda key: transforms.color_jitter.__wrapped__(key, None, 0.4, 1.5, 0.2, 0.1)))
    amounts, order, turn, place = (np.asarray(x) for x in draw(keys))
    for values, low, high in zip([*amounts.T, turn], (0.6, 0, 0.8, -0.1), (1.4, 2.5, 1.2, 0.1), strict=True):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    _, counts = np.unique(np.column_stack([order, place]), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_jitter_by_nothing_or_never_leaves_the_image(small):
    x = planes(small)
    jitter = jax.jit(transforms.color_jitter, static_argnums=range(2, 7))
    nothing = jitter(jax.random.key(0), x, 0.0, 0.0, 0.0, 0.0)
    never = jitter(jax.random.key(0), x, 0.8, 0.8, 0.8, 0.2, 0.0)
    np.testing.assert_array_equal(nothing, x)
    np.testing.assert_allclose(never, x, atol=1e-6)


def test_jitter_applies_with_its_probability(monkeypatch):
    monkeypatch.setattr(transforms, "adjust_colors", lambda image, *arguments: arguments)
    keys = jax.random.split(jax.random.key(0), 2_000)
    draw = jax.vmap(lambda key: transforms.color_jitter.__wrapped__(key, None, 0.4, 1.5, 0.2, 0.1, probability=0.7))
    amounts, _, turn, _ = (np.asarray(x) for x in jax.jit(draw)(keys))
    unchanged = np.all(amounts == 1, axis=1)
    np.testing.assert_array_equal(unchanged, turn == 0)
    assert stats.binomtest(int(np.sum(~unchanged)), len(keys), 0.7).pvalue > 1e-3


def test_grayscale_is_pillows_luma(small):
    expected = pixels(small.convert("L"))
    actual = transforms.grayscale(planes(small))
    assert actual.shape == (3, 48, 65)
    for channel in actual:
        np.testing.assert_allclose(channel, expected, atol=0.51 * BYTE)


def test_solarize_is_pillows(small):
    np.testing.assert_allclose(
        channels_last(transforms.solarize(planes(small))), pixels(ImageOps.solarize(small, 128)), atol=1e-6
    )


# Flip and blur


def test_flip_mirrors_half_of_the_images_as_pillow(small):
    keys = jax.random.split(jax.random.key(0), 400)
    flipped = np.asarray(jax.vmap(transforms.random_flip, (0, None))(keys, planes(small)))
    mirrored = np.all(flipped == np.asarray(planes(ImageOps.mirror(small))), axis=(1, 2, 3))
    same = np.all(flipped == np.asarray(planes(small)), axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert stats.binomtest(int(mirrored.sum()), len(keys), 0.5).pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0, 2.0])
@pytest.mark.parametrize(("kernel", "radius"), [(None, 2), (3, 1), (17, 8)])
def test_blur_is_scipys_gaussian_filter_of_the_same_radius(small, sigma, kernel, radius):
    x = np.asarray(planes(small), np.float64)
    expected = ndimage.gaussian_filter(x, (0, sigma, sigma), mode="mirror", radius=(0, radius, radius))
    actual = gaussian_blur(planes(small), jnp.float32(sigma), kernel)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("height", "kernel"), [(32, 3), (96, 9), (224, 23)])
def test_blur_spans_a_tenth_of_the_image_made_odd(height, kernel):
    impulse = np.zeros((3, height, 64), np.float32)
    impulse[:, height // 2, 32] = 1.0
    blurred = np.asarray(gaussian_blur(jnp.asarray(impulse), jnp.float32(50.0)))
    assert np.count_nonzero(blurred[0, height // 2]) == kernel


def test_blur_of_deviation_0_and_of_constants_changes_nothing(small):
    np.testing.assert_array_equal(gaussian_blur(planes(small), jnp.float32(0.0), 17), planes(small))
    constant = jnp.full((3, 24, 31), 0.3)
    np.testing.assert_allclose(gaussian_blur(constant, jnp.float32(1.5), 17), constant, atol=1e-6)


def test_a_kernel_wider_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"blur_kernel=17: an image of \(8, 40\) pixels is too small"):
        gaussian_blur(jnp.zeros((3, 8, 40)), jnp.float32(1.0), 17)
