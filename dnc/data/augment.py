"""Image augmentation on the accelerator: every transform is a pure function of a key and one image in [0, 1].

Parameters carry torchvision's meaning, so that published recipes can be copied; `Augmentation` composes them and is
vmapped over a batch with a key an example.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnc.types import Array, Float, Key

Image = Float[Array, "h w 3"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow and torchvision


def standardise(images: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """[0, 1] to about zero mean and unit deviation: (x - 0.5) / 0.25, the same for every data set trained here."""
    return (images - 0.5) / 0.25


def grayscale(image: Image) -> Image:
    """ITU-R 601 luma in all three channels."""
    luma = jnp.dot(image, jnp.asarray(_LUMA), precision="highest")
    return jnp.broadcast_to(luma[..., None], image.shape)


def random_resized_crop(key: Key[Array, ""], image: Image, scale: tuple[float, float]) -> Image:
    """A crop of a random share of the area and aspect 3/4 to 4/3, resized back (bilinear, anti-aliased)."""
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    height, width, _ = image.shape
    area = jax.random.uniform(area_key, minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(jax.random.uniform(aspect_key, minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
    crop = jnp.minimum(jnp.sqrt(area * jnp.stack([1 / aspect, aspect])), 1.0)  # shares of height and width
    corner = jax.random.uniform(place_key, (2,)) * (1.0 - crop)
    size = jnp.array([height, width], dtype=image.dtype)
    resized = jax.image.scale_and_translate(
        image, image.shape, (0, 1), 1.0 / crop, -corner * size / crop, method="linear", antialias=True
    )
    return jnp.clip(resized, 0.0, 1.0)


def random_flip(key: Key[Array, ""], image: Image, probability: float = 0.5) -> Image:
    """Left-right mirror image."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def color_jitter(
    key: Key[Array, ""], image: Image, brightness: float, contrast: float, saturation: float, hue: float
) -> Image:
    """Brightness, contrast, saturation, hue, each by a random amount, in random order (torchvision's)."""
    order_key, *keys = jax.random.split(key, 5)

    def factor(key: Key[Array, ""], strength: float) -> Float[Array, ""]:
        return jax.random.uniform(key, minval=max(0.0, 1.0 - strength), maxval=1.0 + strength)

    def blend(image: Image, other: Float[Array, "..."], amount: Float[Array, ""]) -> Image:
        return jnp.clip(amount * image + (1.0 - amount) * other, 0.0, 1.0)

    amounts = [factor(k, s) for k, s in zip(keys[:3], (brightness, contrast, saturation), strict=True)]
    turn = jax.random.uniform(keys[3], minval=-hue, maxval=hue)
    operations: list[Callable[[Image], Image]] = [
        lambda x: jnp.clip(amounts[0] * x, 0.0, 1.0),
        lambda x: blend(x, jnp.mean(grayscale(x)), amounts[1]),
        lambda x: blend(x, grayscale(x), amounts[2]),
        lambda x: shift_hue(x, turn),
    ]
    for index in jax.random.permutation(order_key, len(operations)):
        image = jax.lax.switch(index, operations, image)
    return image


def shift_hue(image: Image, turn: Float[Array, ""]) -> Image:
    """Turns the hue by a share of the full circle, through HSV."""
    value = jnp.max(image, axis=-1)
    chroma = value - jnp.min(image, axis=-1)
    r, g, b = image[..., 0], image[..., 1], image[..., 2]
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(
        value == r,
        jnp.mod((g - b) / safe, 6.0),
        jnp.where(value == g, (b - r) / safe + 2.0, (r - g) / safe + 4.0),
    )
    sector = jnp.where(chroma > 0, sector, 0.0) + 6.0 * turn
    k = jnp.mod(jnp.array([[[5.0, 3.0, 1.0]]]) + sector[..., None], 6.0)
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)


def gaussian_blur(key: Key[Array, ""], image: Image, sigma: tuple[float, float] = (0.1, 2.0)) -> Image:
    """Gaussian blur of random width; the kernel spans a tenth of the image (at least 3 pixels), edges reflect."""
    radius = max(1, image.shape[0] // 20)
    width = jax.random.uniform(key, minval=sigma[0], maxval=sigma[1])
    taps = jnp.exp(-0.5 * (jnp.arange(-radius, radius + 1, dtype=image.dtype) / width) ** 2)
    taps = taps / jnp.sum(taps)
    for axis in (0, 1):
        size = image.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.pad(image, padding, mode="reflect")
        image = sum(taps[t] * jax.lax.slice_in_dim(padded, t, t + size, axis=axis) for t in range(2 * radius + 1))  # pyright: ignore[reportAssignmentType]
    return image


def solarise(image: Image, threshold: float = 0.5) -> Image:
    """Inverts the values at or above the threshold."""
    return jnp.where(image >= threshold, 1.0 - image, image)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip, color jitter, grayscale, blur and solarise, in this order.

    Probabilities of 0 drop a transform from the program. Defaults are SimCLR's for small images (Chen et al. 2020,
    appendix A) without blur.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_probability: float = 0.8
    gray: float = 0.2
    blur: float = 0.0
    solarise: float = 0.0

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        crop, flip, jitter, *rest = jax.random.split(key, 6)
        image = random_resized_crop(crop, image, self.crop_scale)
        if self.flip:
            image = random_flip(flip, image, self.flip)
        if self.jitter_probability:
            image = _maybe(jitter, self.jitter_probability, lambda k, x: color_jitter(k, x, *self.jitter), image)
        optional = (
            (self.gray, lambda k, x: grayscale(x)),
            (self.blur, gaussian_blur),
            (self.solarise, lambda k, x: solarise(x)),
        )
        for key, (probability, transform) in zip(rest, optional, strict=True):
            if probability:
                image = _maybe(key, probability, transform, image)
        return image

    def two_views(self, keys: Key[Array, "b"], images: Float[Array, "b h w 3"]) -> Float[Array, "2 b h w 3"]:
        """Two independent augmentations of each image."""
        pair = jax.vmap(jax.random.split, out_axes=1)(keys)
        return jax.vmap(lambda keys: jax.vmap(self)(keys, images))(pair)


def _maybe(key: Key[Array, ""], probability: float, transform: Callable, image: Image) -> Image:
    coin, inner = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(coin, probability), transform(inner, image), image)
