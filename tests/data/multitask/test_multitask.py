"""The renderer: factors mean what they say, nuisances are nuisances, keys reproduce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

from dnc.data.multitask import render as multitask
from dnc.data.multitask.dataset import MultitaskImages, factorial
from dnc.data.multitask.render import FACTORS, render_batch, to_uint8
from dnc.data.multitask.shapes import OUTLINES, signed_distance

BATCH = 24


def factors_of(seed: int, **fixed: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    return {
        name: jnp.full(BATCH, fixed[name], jnp.int32)
        if name in fixed
        else jnp.asarray(generator.integers(0, len(classes), BATCH), jnp.int32)
        for name, classes in FACTORS.items()
    }


def pictures(seed: int = 0, side: int = 32, **fixed: int) -> np.ndarray:
    return np.asarray(render_batch(jax.random.split(jax.random.key(seed), BATCH), factors_of(seed, **fixed), side))


def area(vertices: np.ndarray) -> float:
    x, y = vertices.T
    return abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


@pytest.mark.parametrize("shape", OUTLINES)
def test_outlines_have_the_area_of_the_unit_circle(shape):
    assert area(OUTLINES[shape].astype(np.float64)) == pytest.approx(np.pi, rel=1e-5)


@pytest.mark.parametrize("shape", OUTLINES)
def test_signed_distance_agrees_with_a_filled_polygon_and_dense_samples_of_its_edge(shape):
    vertices = OUTLINES[shape].astype(np.float64)
    grid = np.linspace(-1.9, 1.9, 96)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    actual = np.asarray(signed_distance(jnp.asarray(points, jnp.float32), jnp.asarray(OUTLINES[shape])))

    steps = np.linspace(0, 1, 200)[:, None, None]
    edge = (vertices * (1 - steps) + np.roll(vertices, -1, axis=0) * steps).reshape(-1, 2)
    expected = cKDTree(edge).query(points)[0]
    np.testing.assert_allclose(np.abs(actual), expected, atol=0.01)

    canvas = Image.new("1", (96, 96))
    scaled = (vertices + 1.9) * 95 / 3.8
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in scaled], fill=1)
    clear = expected > 0.06  # away from the edge, where Pillow rounds to pixels
    np.testing.assert_array_equal((actual < 0)[clear], np.asarray(canvas)[clear])


def test_signed_distance_of_a_square_by_hand():
    square = jnp.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [1.0, -1.0]])  # a repeated vertex too
    points = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.5, 0.9], [4.0, 5.0]])
    np.testing.assert_allclose(signed_distance(points, square), [-1.0, 2.0, -0.1, 5.0], atol=1e-6)


@pytest.mark.parametrize("side", [16, 32, 48])
def test_pictures_have_the_asked_size_and_values_in_range(side):
    images = pictures(side=side)
    assert images.shape == (BATCH, side, side, 3)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert to_uint8(jnp.asarray(images)).dtype == jnp.uint8


def test_the_same_key_gives_the_same_picture_and_another_key_another():
    np.testing.assert_array_equal(pictures(seed=1), pictures(seed=1))
    first = render_batch(jax.random.split(jax.random.key(1), BATCH), factors_of(1), 32)
    second = render_batch(jax.random.split(jax.random.key(2), BATCH), factors_of(1), 32)
    assert np.all(np.abs(np.asarray(first - second)).max(axis=(1, 2, 3)) > 0.1)


@pytest.mark.parametrize("factor", FACTORS)
def test_every_class_of_a_factor_draws_another_picture(factor):
    keys = jax.random.split(jax.random.key(0), BATCH)
    drawn = [
        np.asarray(render_batch(keys, factors_of(0, **{factor: value}), 32)) for value in range(len(FACTORS[factor]))
    ]
    for i in range(len(drawn)):
        for j in range(i):
            assert np.abs(drawn[i] - drawn[j]).max(axis=(1, 2, 3)).min() > 0.1, (factor, i, j)


def test_the_hue_of_the_object_is_that_of_its_color():
    for value, hue in enumerate(multitask.HUES.values()):
        images = pictures(color=value, size=3, style=0, shape=0).reshape(BATCH, -1, 3)
        saturated = np.take_along_axis(images, np.ptp(images, axis=2).argmax(axis=1)[:, None, None], axis=1)[:, 0]
        for r, g, b in saturated:
            measured = np.rad2deg(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b))
            assert abs((measured - hue + 180) % 360 - 180) < 20


def test_larger_sizes_cover_more_of_the_picture_whatever_the_shape():
    background = 0.45  # above any background, below every object's brightest channel
    for shape in range(len(FACTORS["shape"])):
        covered = [
            (pictures(shape=shape, style=0, size=size).max(axis=-1) > background).mean()
            for size in range(len(FACTORS["size"]))
        ]
        radii = np.array(list(multitask.RADII.values()))
        np.testing.assert_allclose(covered, np.pi * radii**2, rtol=0.12)


def test_factorial_is_balanced_and_independent():
    labels = factorial(renders=3)
    cells = np.stack(list(labels.values()), axis=-1)
    combinations, counts = np.unique(cells, axis=0, return_counts=True)
    assert len(combinations) == np.prod([len(classes) for classes in FACTORS.values()])
    assert set(counts) == {3}


def test_training_factors_are_uniform_and_a_function_of_the_index():
    data = MultitaskImages()
    index = jnp.arange(6000, dtype=jnp.int32)
    factors = data.factors(index)
    for name, classes in FACTORS.items():
        shares = np.bincount(factors[name], minlength=len(classes)) / len(index)
        np.testing.assert_allclose(shares, 1 / len(classes), atol=0.025)
        np.testing.assert_array_equal(factors[name][100:110], data.factors(index[100:110])[name])


@pytest.mark.parametrize("views", ["render", pytest.param("augment", marks=pytest.mark.slow)])
def test_views_differ_reproduce_and_do_not_depend_on_the_rest_of_the_batch(views, key):
    data = MultitaskImages(views=views)
    make = jax.jit(data.make_views)
    whole = make({"index": jnp.arange(8, dtype=jnp.int32)}, key)
    half = make({"index": jnp.arange(4, 8, dtype=jnp.int32)}, key)
    first, second = np.asarray(whole["views"])
    assert np.abs(first - second).max(axis=(1, 2, 3)).min() > 0.1
    np.testing.assert_allclose(whole["views"][:, 4:], half["views"], atol=1e-5)
    for name in FACTORS:
        np.testing.assert_array_equal(whole["labels"][name][4:], half["labels"][name])


def test_second_view_keeps_each_factor_with_the_given_probability():
    data = MultitaskImages(keep=0.8)
    index = jnp.arange(4000, dtype=jnp.int32)
    factors = data.factors(index)
    other = data._resample(jax.random.split(jax.random.key(0), 4000), factors)
    agreements = {name: np.asarray(factors[name] == other[name]) for name in FACTORS}
    for name, classes in FACTORS.items():
        assert agreements[name].mean() == pytest.approx(0.8 + 0.2 / len(classes), abs=0.025)
    correlations = np.corrcoef(list(agreements.values()))
    np.testing.assert_allclose(correlations, np.eye(len(FACTORS)), atol=0.06)  # factors change independently
    shares = np.bincount(other["color"]) / 4000
    np.testing.assert_allclose(shares, 1 / 6, atol=0.025)


def test_held_out_pictures_are_the_factorial_and_not_the_training_pictures():
    data = MultitaskImages(num_examples=64, image_size=8, held_out_renders=2)
    images, labels = data.held_out()
    assert images.shape == (2 * 576, 8, 8, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(labels["style"], factorial(2)["style"])
    assert np.any(images[:576] != images[576:])  # the second repetition draws other nuisances


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.0}, "keep="),
        ({"keep": 1.5}, "keep="),
        ({"views": "both"}, r"views='both' is not known: choose one of \['augment', 'render'\]"),
        ({"captions": True, "context_length": 40}, "context_length=40: the longest caption, 'a picture of .*', takes"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MultitaskImages(**settings)
