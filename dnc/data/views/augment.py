"""Views of images, made on the accelerator: every view is a pure function of a key and one image in [0, 1].

`Augmentation` is the distribution of one view, `Views` the set of views made of every image. The transforms are in
`transforms`, the published methods' views in `recipes`.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import jax
import jax.numpy as jnp

from dnc import errors
from dnc.data.views import transforms
from dnc.types import Array, Float, Int, Key


def standardize_pixels(images: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """[0, 1] to about zero mean and unit deviation: (x - 0.5) / 0.25, the same for every data set trained here."""
    return (images - 0.5) / 0.25


def example_keys(key: Key[Array, ""], index: Int[Array, "b"]) -> Key[Array, "b"]:
    """A key for each example, which depends on `key` and the example's index only, not on the rest of the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The distribution of one view: crop, flip, color jitter, grayscale, blur and solarize, in this order.

    flip, jitter_probability, gray, blur and solarize are probabilities; at 0 the transform is not compiled at all.
    size: of the square view, in pixels; None keeps the image's. The rest is as in `transforms`. Defaults are SimCLR's
    for small images (Chen et al. 2020, appendix B.9), at full strength.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_method: str = "bilinear"
    size: int | None = None
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_probability: float = 0.8
    gray: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | None = None
    solarize: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter_probability", "gray", "blur", "solarize"):
            self._check(name, 0.0 <= getattr(self, name) <= 1.0, "give a probability from 0 to 1")
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            limits = getattr(self, name)
            self._check(name, len(limits) == 2 and 0.0 < limits[0] <= limits[1], "give (low, high), 0 < low <= high")
        fits = len(self.jitter) == 4 and min(self.jitter) >= 0.0 and self.jitter[3] <= 0.5
        self._check("jitter", fits, "give (brightness, contrast, saturation, hue), none negative, hue at most 0.5")
        if self.crop_method not in transforms.METHODS:
            raise errors.unknown("augmentation.crop_method", self.crop_method, transforms.METHODS)
        self._check("size", self.size is None or self.size >= 1, "give a number of pixels or None")
        kernel = self.blur_kernel
        self._check("blur_kernel", kernel is None or (kernel >= 1 and kernel % 2 == 1), "give an odd number or None")

    def _check(self, name: str, holds: bool, advice: str) -> None:
        if not holds:
            raise ValueError(f"augmentation.{name}={getattr(self, name)!r}: {advice}.")

    def __call__(
        self, key: Key[Array, ""], image: Float[Array, "h w 3"], original: Int[Array, "2"] | None = None
    ) -> Float[Array, "H W 3"]:
        """One view of one image in [0, 1]; `original` as for `transforms.random_resized_crop`."""
        crop, flip, jitter, gray, blur, solarize = jax.random.split(key, 6)
        x = transforms.random_resized_crop(
            crop,
            jnp.moveaxis(image, -1, 0),
            self.crop_scale,
            self.crop_ratio,
            size=self.size,
            original=original,
            method=self.crop_method,
        )
        if self.flip:
            x = transforms.random_flip(flip, x, self.flip)
        if self.jitter_probability:
            x = transforms.color_jitter(jitter, x, *self.jitter, probability=self.jitter_probability)
        if self.gray:
            x = jnp.where(jax.random.bernoulli(gray, self.gray), transforms.grayscale(x), x)
        if self.blur:
            coin_key, sigma_key = jax.random.split(blur)
            sigma = jax.random.uniform(sigma_key, minval=self.blur_sigma[0], maxval=self.blur_sigma[1])
            sigma = jnp.where(jax.random.bernoulli(coin_key, self.blur), sigma, 0.0)
            x = transforms.gaussian_blur(x, sigma, self.blur_kernel)
        if self.solarize:
            x = jnp.where(jax.random.bernoulli(solarize, self.solarize), transforms.solarize(x), x)
        return jnp.moveaxis(x, 0, -1)


_DEFAULT = Augmentation()


class ViewBatch(TypedDict):
    """The views of a batch of images, in [0, 1], and local views if there are any."""

    views: Float[Array, "v b H W 3"]
    local_views: NotRequired[Float[Array, "l b s s 3"]]


@dataclasses.dataclass(frozen=True)
class Views:
    """The views made of every image, one augmentation each, drawn independently; by default two equal ones.

    Multi-crop (Caron et al. 2020) adds `local_views`, small crops at a small size. All views of a kind share one size.
    """

    global_views: tuple[Augmentation, ...] = (_DEFAULT, _DEFAULT)
    local_views: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        if not self.global_views:
            raise ValueError("global_views=(): give at least one augmentation.")
        for name in ("global_views", "local_views"):
            if len(sizes := {view.size for view in getattr(self, name)}) > 1:
                raise ValueError(f"{name} have sizes {sizes}: give all of them one size, as they share an array.")

    def __call__(
        self, keys: Key[Array, "b"], images: Float[Array, "b h w 3"], originals: Int[Array, "b 2"] | None = None
    ) -> ViewBatch:
        """All views of images in [0, 1]; those of an image depend on its own key only.

        originals: the images' sizes before they were stretched, see `transforms.random_resized_crop`.
        """
        count = len(self.global_views)
        keys = jax.vmap(lambda key: jax.random.split(key, count + len(self.local_views)), out_axes=1)(keys)
        views: ViewBatch = {"views": _apply(self.global_views, keys[:count], images, originals)}
        if self.local_views:
            views["local_views"] = _apply(self.local_views, keys[count:], images, originals)
        return views


def _apply(
    augmentations: Sequence[Augmentation],
    keys: Key[Array, "v b"],
    images: Float[Array, "b h w 3"],
    originals: Int[Array, "b 2"] | None,
) -> Float[Array, "v b H W 3"]:
    """One view after another: the batch stays on its devices, and equal neighbors share one compiled program."""
    views, start = [], 0
    for augmentation, equal in itertools.groupby(augmentations):
        stop = start + len(list(equal))
        apply = jax.vmap(augmentation)
        views.append(jax.lax.map(lambda keys, apply=apply: apply(keys, images, originals), keys[start:stop]))
        start = stop
    return jnp.concatenate(views)
