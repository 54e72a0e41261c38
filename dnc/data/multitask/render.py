"""Synthetic multitask images: one object per picture, four independent labelings, rendered on the accelerator.

A picture shows one object on a plain background. Four **factors** label it: color, shape, size and style (how the
object is drawn). Everything else about it is a **nuisance**, drawn at random: position, rotation, background,
brightness, hue jitter, stroke width, pattern phase and pixel noise. The renderer is a pure function of a key and the
factors, so a data set is a seed, any resolution works, and nothing is stored.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dnc.data.multitask.shapes import OUTLINES, signed_distance
from dnc.types import Array, Float, Int, Key, UInt8

HUES = {"red": 0.0, "yellow": 50.0, "green": 120.0, "cyan": 182.0, "blue": 230.0, "magenta": 305.0}  # degrees
RADII = {"tiny": 0.155, "small": 0.205, "medium": 0.26, "large": 0.32}  # of the image's side, for the circle
STYLES = ("filled", "outlined", "striped", "dotted")

FACTORS: dict[str, tuple[str, ...]] = {
    "color": tuple(HUES),
    "shape": tuple(OUTLINES),
    "size": tuple(RADII),
    "style": STYLES,
}

Factors = Mapping[str, Int[Array, "*b"]]

_PERIOD = 0.14  # of stripes and dots, as a share of the image's side: 4.5 pixels at 32 px


def render(key: Key[Array, ""], factors: Mapping[str, Int[Array, ""]], image_size: int) -> Float[Array, "s s 3"]:
    """One anti-aliased picture with values in [0, 1]; nuisances come from `key`. vmap it for a batch."""
    keys = dict(zip(_NUISANCES, jax.random.split(key, len(_NUISANCES)), strict=True))
    radius = jnp.asarray(list(RADII.values()))[factors["size"]]
    vertices = radius * jnp.asarray(np.stack(list(OUTLINES.values())))[factors["shape"]]

    points = _object_coordinates(keys, jnp.max(jnp.linalg.norm(vertices, axis=-1)), image_size)
    distance = signed_distance(points, vertices)
    coverage = _coverage(keys, distance, points, factors["style"], 1.0 / image_size)

    background = _background(keys, image_size)
    color = _object_color(keys, factors["color"])[None, None]
    image = background + coverage[..., None] * (color - background)
    noise_scale = jax.random.uniform(keys["noise_scale"], maxval=0.03)
    image += noise_scale * jax.random.normal(keys["noise"], image.shape)
    return jnp.clip(image, 0.0, 1.0)


_NUISANCES = (
    "position",
    "rotation",
    "background",
    "gradient",
    "brightness",
    "hue",
    "saturation",
    "stroke",
    "phase",
    "noise_scale",
    "noise",
)


def _object_coordinates(keys: dict, extent: Float[Array, ""], image_size: int) -> Float[Array, "s s 2"]:
    """Pixel centers in the object's frame: moved so that the object stays in the picture, then rotated."""
    centers = (jnp.arange(image_size, dtype=jnp.float32) + 0.5) / image_size - 0.5
    points = jnp.stack(jnp.meshgrid(centers, -centers, indexing="xy"), axis=-1)  # y points up
    room = jnp.clip(0.48 - extent, 0.02, 0.15)
    points -= jax.random.uniform(keys["position"], (1, 1, 2), minval=-1.0) * room
    angle = jax.random.uniform(keys["rotation"], minval=-jnp.pi / 9, maxval=jnp.pi / 9)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    return jnp.matmul(points, rotation, precision="highest")


def _coverage(
    keys: dict,
    distance: Float[Array, "s s"],
    points: Float[Array, "s s 2"],
    style: Int[Array, ""],
    pixel: float,
) -> Float[Array, "s s"]:
    """Share of each pixel that the object covers, by style; every edge is one pixel soft."""

    def cover(signed: Float[Array, "s s"]) -> Float[Array, "s s"]:
        return jnp.clip(0.5 - signed / pixel, 0.0, 1.0)

    stroke = jax.random.uniform(keys["stroke"], minval=0.045, maxval=0.065)
    phase = jax.random.uniform(keys["phase"], (1, 1, 2), maxval=_PERIOD)
    cell = jnp.mod(points + phase, _PERIOD) - _PERIOD / 2  # position within one cell of the pattern
    rim = cover(jnp.abs(distance + 0.016) - 0.016)  # thin, so that the outline shows whatever the pattern
    stripes = cover(jnp.maximum(jnp.abs(cell[..., 1]) - 0.28 * _PERIOD, distance))
    dots = cover(jnp.maximum(jnp.linalg.norm(cell, axis=-1) - 0.36 * _PERIOD, distance))
    drawn = jnp.stack(
        [
            cover(distance),
            cover(jnp.abs(distance + stroke / 2) - stroke / 2),
            jnp.maximum(rim, stripes),
            jnp.maximum(rim, dots),
        ]
    )
    return drawn[style]


def _background(keys: dict, image_size: int) -> Float[Array, "s s 3"]:
    """A dark, nearly gray plane with a slight linear gradient."""
    level = jax.random.uniform(keys["background"], (1, 1, 3), minval=-0.03, maxval=0.03)
    level += jax.random.uniform(jax.random.fold_in(keys["background"], 1), minval=0.05, maxval=0.25)
    slope = jax.random.uniform(keys["gradient"], (2,), minval=-0.08, maxval=0.08)
    ramp = jnp.linspace(-0.5, 0.5, image_size)
    plane = slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return level + plane[..., None]


def _object_color(keys: dict, color: Int[Array, ""]) -> Float[Array, "3"]:
    """Hue, saturation and value to RGB, each jittered."""
    hue = jnp.asarray(list(HUES.values()))[color]
    hue += jax.random.uniform(keys["hue"], minval=-10.0, maxval=10.0)
    saturation = jax.random.uniform(keys["saturation"], minval=0.8, maxval=1.0)
    value = jax.random.uniform(keys["brightness"], minval=0.8, maxval=1.0)
    k = jnp.mod(jnp.array([5.0, 3.0, 1.0]) + hue / 60.0, 6.0)
    return value * (1.0 - saturation * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0))


@partial(jax.jit, static_argnames="image_size")
def render_batch(keys: Key[Array, "b"], factors: Factors, image_size: int) -> Float[Array, "b s s 3"]:
    """`render` for a batch of keys and factors."""
    return jax.vmap(lambda key, labels: render(key, labels, image_size))(keys, dict(factors))


def to_uint8(images: Float[Array, "*b h w c"]) -> UInt8[Array, "*b h w c"]:
    """[0, 1] to 0..255, rounded to nearest."""
    return jnp.round(images * 255.0).astype(jnp.uint8)
