"""How a published encoder's authors prepare photographs for it: resized and cropped on the host, then standardized.

Settings are those of `preprocessor_config.json`, with the defaults of the image processors of `transformers`, whose
pixels they reproduce (its Pillow ones exactly), or those of timm.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from dnc import errors
from dnc.types import Array, ArrayLike, Float, UInt8

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# What a processor does by default; under None, torchvision's way, for files that name no processor.
PROCESSORS: dict[str | None, dict[str, Any]] = {
    None: dict(
        size={"shortest_edge": 256}, crop_size=224, resample=2, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    ),
    "ViT": dict(size=224, resample=2, image_mean=HALF, image_std=HALF, do_center_crop=False),
    "Siglip": dict(size=224, resample=3, image_mean=HALF, image_std=HALF, do_center_crop=False),
    "CLIP": dict(size={"shortest_edge": 224}, crop_size=224, resample=3, image_mean=CLIP_MEAN, image_std=CLIP_STD),
    "Bit": dict(size={"shortest_edge": 224}, crop_size=224, resample=3, image_mean=CLIP_MEAN, image_std=CLIP_STD),
    "ConvNext": dict(size={"shortest_edge": 384}, resample=3, image_mean=HALF, image_std=HALF, do_center_crop=False),
}
STRETCHED = {"ViT", "Siglip"}  # old files give the size as one number: the side of a square here, else the shorter edge


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, center crop, then (x - mean) / std of RGB in [0, 1].

    resize: length of the shorter edge (the other in proportion, rounded down), or height and width, or None.
    crop: height and width cut from the center, or None; where a picture that was not resized is smaller, black.
    interpolation: Pillow's name of a resampling filter. mean, std: of red, green and blue.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        known = [filter.name.lower() for filter in Image.Resampling]
        if self.interpolation not in known:
            raise errors.unknown("interpolation", self.interpolation, known)
        if self.crop is None and not isinstance(self.resize, tuple):
            raise ValueError(f"resize={self.resize!r} without a crop leaves pictures of unequal sizes: give crop=")
        resized = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if self.crop and resized and (self.crop[0] > resized[0] or self.crop[1] > resized[1]):
            raise ValueError(
                f"crop={self.crop} is larger than what resize={self.resize} leaves: crop no more than that"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean={self.mean}, std={self.std}: give three numbers each, and positive deviations")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what `image` returns."""
        size = self.crop or self.resize
        assert isinstance(size, tuple)
        return size

    def image(self, picture: Image.Image) -> np.ndarray:
        """The picture as the network sees it, uint8 [h, w, 3], on the host."""
        picture = picture.convert("RGB")
        if self.resize is not None:
            filter = Image.Resampling[self.interpolation.upper()]
            picture = picture.resize(_resized(picture.size, self.resize), filter)
        if self.crop is not None:
            left, top = (picture.width - self.crop[1]) // 2, (picture.height - self.crop[0]) // 2
            picture = picture.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.asarray(picture)

    def standardize(
        self, images: Float[ArrayLike, "*b h w 3"] | UInt8[ArrayLike, "*b h w 3"]
    ) -> Float[Array, "*b h w 3"]:
        """(x - mean) / std on the device, of bytes or of numbers in [0, 1]; what the encoder takes."""
        x = jnp.asarray(images)
        x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
        mean, std = (jnp.broadcast_to(jnp.asarray(values, x.dtype), x.shape) for values in (self.mean, self.std))
        return (x - mean) / std


def _resized(size: tuple[int, int], resize: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height after resizing."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    width, height = (int(resize * edge / min(size)) for edge in size)
    return width, height


def from_config(config: Mapping[str, Any]) -> Preprocessing:
    """Of a `preprocessor_config.json`; one without a processor's name changes what torchvision does.

    Raises ValueError for processors and settings that are not supported.
    """
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    kind = name and re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
    if kind not in PROCESSORS:
        known = [f"{kind}ImageProcessor" for kind in PROCESSORS if kind]
        raise ValueError(
            f"preprocessor_config.json names the image processor {name!r}, which is not supported: only {known} are"
        )
    settings = {**PROCESSORS[kind], **{key: value for key, value in config.items() if value is not None}}
    if not settings.get("do_rescale", True) or abs(255 * settings.get("rescale_factor", 1 / 255) - 1) > 1e-6:
        raise ValueError("preprocessor_config.json: only do_rescale with rescale_factor 1/255 is supported")
    resize = _edge_or_sides(settings["size"], kind in STRETCHED) if settings.get("do_resize", True) else None
    crop = _sides(settings["crop_size"]) if settings.get("do_center_crop", True) and "crop_size" in settings else None
    if kind == "ConvNext" and isinstance(resize, int):
        resize, crop = _convnext(resize, settings.get("crop_pct", 224 / 256))
    normalized = settings.get("do_normalize", True)
    return Preprocessing(
        resize=resize,
        crop=crop,
        interpolation=Image.Resampling(settings["resample"]).name.lower(),
        mean=_floats(settings["image_mean"]) if normalized else (0.0, 0.0, 0.0),
        std=_floats(settings["image_std"]) if normalized else (1.0, 1.0, 1.0),
    )


def _convnext(edge: int, crop_pct: float) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    """ConvNeXt's resize and crop: from 384 pixels on it stretches pictures to a square."""
    return (int(edge / crop_pct), (edge, edge)) if edge < 384 else ((edge, edge), None)


def from_timm(settings: Mapping[str, Any]) -> Preprocessing:
    """Of `pretrained_cfg` in the config.json of timm: the shorter edge to input size / crop_pct, rounded down."""
    _, height, width = settings["input_size"]
    if height != width or settings.get("crop_mode", "center") != "center":
        raise ValueError(f"config.json: only center crops to a square are supported, not {dict(settings)}")
    return Preprocessing(
        resize=math.floor(height / settings.get("crop_pct", 0.875)),
        crop=(height, width),
        interpolation=settings.get("interpolation", "bilinear"),
        mean=_floats(settings.get("mean", IMAGENET_MEAN)),
        std=_floats(settings.get("std", IMAGENET_STD)),
    )


def _floats(values: Sequence[float | int]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _edge_or_sides(size: int | Mapping[str, int], stretched: bool) -> int | tuple[int, int]:
    if isinstance(size, int):
        return (size, size) if stretched else size
    return size["shortest_edge"] if set(size) == {"shortest_edge"} else _sides(size)


def _sides(size: int | Mapping[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if set(size) != {"height", "width"}:
        raise ValueError(f"preprocessor_config.json: the size {dict(size)} is not supported, give height and width")
    return size["height"], size["width"]
