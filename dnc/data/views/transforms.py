"""Image transforms on the accelerator: pure functions of one image in [0, 1], of planes [3, h, w].

Parameters have torchvision's meaning, so that published recipes can be copied. Planes, because rows of pixels fill
vector units and three channels do not.
"""

import math

import jax
import jax.numpy as jnp

from dnc.types import Array, Float, Int, Key

Image = Float[Array, "3 h w"]
Scalar = Float[Array, ""]

METHODS = ("bilinear", "bicubic")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and torchvision
_ATTEMPTS = 10  # at a crop that fits, as in torchvision


def luma(image: Image) -> Float[Array, "h w"]:
    """ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B."""
    return _LUMA[0] * image[0] + _LUMA[1] * image[1] + _LUMA[2] * image[2]


def grayscale(image: Image) -> Image:
    """The luma in all three channels."""
    return jnp.broadcast_to(luma(image)[None], image.shape)


def solarize(image: Image, threshold: float = 0.5) -> Image:
    """Inverts the values at or above the threshold."""
    return jnp.where(image >= threshold, 1.0 - image, image)


def random_flip(key: Key[Array, ""], image: Image, probability: float = 0.5) -> Image:
    """Left-right mirror image."""
    return jnp.where(jax.random.bernoulli(key, probability), image[..., ::-1], image)


def random_box(
    key: Key[Array, ""],
    height: Int[Array, ""],
    width: Int[Array, ""],
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int[Array, "4"]:
    """A box (top, left, height, width) in whole pixels inside an image, by the rule of torchvision's RandomResizedCrop.

    Area uniform in scale * height * width, aspect width / height log-uniform in `ratio`, the first of ten draws whose
    rounded sides fit, placed uniformly. Where none fits: the largest central box with an aspect within `ratio`.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    full_height, full_width = height.astype(jnp.float32), width.astype(jnp.float32)
    share = jax.random.uniform(area_key, (_ATTEMPTS,), minval=scale[0], maxval=scale[1])
    area = share * (full_height * full_width)
    limits = (math.log(ratio[0]), math.log(ratio[1]))
    aspect = jnp.exp(jax.random.uniform(aspect_key, (_ATTEMPTS,), minval=limits[0], maxval=limits[1]))
    heights, widths = jnp.round(jnp.sqrt(area / aspect)), jnp.round(jnp.sqrt(area * aspect))
    fits = (heights > 0) & (heights <= full_height) & (widths > 0) & (widths <= full_width)
    first, any_fits = jnp.argmax(fits), jnp.any(fits)

    box_height = jnp.where(any_fits, heights[first], jnp.minimum(full_height, jnp.round(full_width / ratio[0])))
    box_width = jnp.where(any_fits, widths[first], jnp.minimum(full_width, jnp.round(full_height * ratio[1])))
    box_height, box_width = box_height.astype(jnp.int32), box_width.astype(jnp.int32)
    free_height, free_width = height - box_height, width - box_width
    top = jnp.where(any_fits, jax.random.randint(top_key, (), 0, free_height + 1), free_height // 2)
    left = jnp.where(any_fits, jax.random.randint(left_key, (), 0, free_width + 1), free_width // 2)
    return jnp.stack([top, left, box_height, box_width])


def resized_crop(
    image: Image, box: Float[Array, "4"], size: tuple[int, int], method: str = "bilinear"
) -> Float[Array, "3 H W"]:
    """The box (top, left, height, width, in pixels, fractions allowed) of an image, resized to `size` = (H, W).

    Anti-aliased, equal to Pillow's `resize(size, method, box)` before its rounding to bytes; bicubic is Keys' kernel
    with a = -1/2. Like Pillow's, the filter at an inner edge of the box sees the pixels beyond it; torchvision cuts the
    box out first, so that its outermost pixels (within one, bicubic two, of the edge) differ.
    """
    scale = jnp.asarray(size, box.dtype) / box[2:]
    resized = jax.image.scale_and_translate(image, (3, *size), (1, 2), scale, -box[:2] * scale, method=method)
    return jnp.clip(resized, 0.0, 1.0)  # bicubic overshoots


def random_resized_crop(
    key: Key[Array, ""],
    image: Image,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    size: int | None = None,
    original: Int[Array, "2"] | None = None,
    method: str = "bilinear",
) -> Float[Array, "3 H W"]:
    """The box that `random_box` draws, resized to [size, size], or by default to the image's size.

    original: (height, width) of the image before it was stretched onto the canvas that `image` is. The box is drawn in
    the original's geometry and read from the canvas, so that the crop has the aspect it would have had.
    """
    canvas = jnp.asarray(image.shape[1:], jnp.int32)
    original = canvas if original is None else original.astype(jnp.int32)
    box = random_box(key, original[0], original[1], scale, ratio).astype(image.dtype)
    stretch = canvas.astype(image.dtype) / original.astype(image.dtype)
    shape = (image.shape[1], image.shape[2]) if size is None else (size, size)
    return resized_crop(image, box * jnp.tile(stretch, 2), shape, method)


def color_jitter(
    key: Key[Array, ""],
    image: Image,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float = 1.0,
) -> Image:
    """Brightness, contrast, saturation and hue, each by a random amount, in random order (torchvision's ColorJitter).

    The first three by factors uniform in [max(0, 1 - strength), 1 + strength], hue by a turn uniform in [-hue, hue].
    """
    coin_key, order_key, place_key, turn_key, factor_key = jax.random.split(key, 5)
    applied = jax.random.bernoulli(coin_key, probability)
    strengths = jnp.array([brightness, contrast, saturation])
    factors = jax.random.uniform(factor_key, (3,), minval=jnp.maximum(0.0, 1.0 - strengths), maxval=1.0 + strengths)
    factors = jnp.where(applied, factors, 1.0)
    order = jax.random.permutation(order_key, 3)
    if not hue:
        return adjust_colors(image, factors, order)
    turn = jnp.where(applied, jax.random.uniform(turn_key, minval=-hue, maxval=hue), 0.0)
    return adjust_colors(image, factors, order, turn, jax.random.randint(place_key, (), 0, 4))


def adjust_colors(
    image: Image,
    factors: Float[Array, "3"],
    order: Int[Array, "3"],
    turn: Scalar | None = None,
    place: Int[Array, ""] | None = None,
) -> Image:
    """Brightness (0), contrast (1) and saturation (2) by their factors in the order `order`, hue after `place` of them.

    Each of the three is clip(f x + (1 - f) other) with other = 0, the mean luma, the luma: one blend, whatever its
    kind. Under vmap a switch between transforms computes all of them, at each of four positions; this is one turn of
    the hue between six blends, of which three have factor 1 and change nothing.
    """
    for position in range(3):
        kind = order[position]
        image = _blend(image, kind, factors[kind] if place is None else jnp.where(position < place, factors[kind], 1.0))
    if turn is None or place is None:
        return image
    image = shift_hue(image, turn)
    for position in range(3):
        kind = order[position]
        image = _blend(image, kind, jnp.where(position < place, 1.0, factors[kind]))
    return image


def _blend(image: Image, kind: Int[Array, ""], factor: Scalar) -> Image:
    gray = luma(image)
    other = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, jnp.mean(gray), gray))
    blended = jnp.clip(factor * image + ((1.0 - factor) * other)[None], 0.0, 1.0)
    return jax.lax.optimization_barrier(blended)  # if fused, each blend would recompute all earlier ones


def shift_hue(image: Image, turn: Scalar) -> Image:
    """Turns the hue by a share of the full circle, through HSV.

    On a circle of length 6 a channel is at its largest within 1 of its own hue (0, 2, 4 for R, G, B), at its smallest
    beyond 2, and linear in between.
    """
    red, green, blue = image
    value = jnp.maximum(jnp.maximum(red, green), blue)
    least = jnp.minimum(jnp.minimum(red, green), blue)
    chroma = value - least
    unit = 1.0 / jnp.where(chroma > 0, chroma, 1.0)
    # Compared with each other, not with the maximum, which XLA may round differently when it recomputes it.
    red_leads, green_leads = (red >= green) & (red >= blue), green >= blue
    hue = jnp.where(
        red_leads,
        (green - blue) * unit,
        jnp.where(green_leads, (blue - red) * unit + 2.0, (red - green) * unit + 4.0),
    )
    hue = hue + 6.0 * turn
    distance = hue[None] - jnp.array([0.0, 2.0, 4.0])[:, None, None]
    distance = jnp.abs(distance - 6.0 * jnp.round(distance / 6.0))
    return least[None] + chroma[None] * jnp.clip(2.0 - distance, 0.0, 1.0)


def gaussian_blur(image: Image, sigma: Scalar, kernel: int | None = None) -> Image:
    """Gaussian blur of deviation `sigma` pixels over `kernel` taps, an odd number; edges reflect, 0 changes nothing.

    Without `kernel`, SimCLR's: a tenth of the height made odd, at least 3 (23 at 224 pixels, 3 at 32).
    """
    radius = max(1, image.shape[1] // 20) if kernel is None else kernel // 2
    if radius >= min(image.shape[1:]):
        raise ValueError(f"blur_kernel={2 * radius + 1}: an image of {image.shape[1:]} pixels is too small for it")
    offsets = jnp.arange(-radius, radius + 1, dtype=image.dtype)
    taps = jnp.where(offsets == 0, 1.0, jnp.exp(-0.5 * (offsets / sigma) ** 2))
    taps = taps / jnp.sum(taps)
    for axis in (1, 2):
        size = image.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jax.lax.optimization_barrier(jnp.pad(image, padding, mode="reflect"))  # else recomputed for every tap
        image = sum(taps[t] * jax.lax.slice_in_dim(padded, t, t + size, axis=axis) for t in range(2 * radius + 1))  # pyright: ignore[reportAssignmentType]
    return image
