"""Image files of any mode as upright 8-bit RGB, and the two ways in which a picture becomes a square of pixels.

What a file's mode means here: transparency is composited over white (most such pictures were drawn for light pages);
16-bit gray is scaled to 8 bits, round(255 v / 65535), where Pillow alone would clip it; of an animation the first
frame is taken; the orientation that a camera wrote into EXIF is applied.
"""

import io
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps

from dnc.types import UInt8

Image.init()  # all formats now: Pillow would load them at first use, and threads may see them half loaded
# Those that Pillow decodes itself, without starting another program as it does for EPS (Ghostscript).
FORMATS = tuple(x for x in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF") if x in Image.OPEN)
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MAX_PIXELS = 80_000_000  # more than cameras take, fewer than make Pillow warn
GAP = 2.0  # much larger images are first reduced cheaply, to no less than this times the size asked for
_ORIENTATION = 0x0112  # EXIF tag


class BrokenImageError(OSError):
    """An image whose content cannot be decoded; the message is its name and the reason."""


def decode(file: pathlib.Path | bytes, name: str, at_least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """An image file, or its bytes, as an upright RGB picture, and its height and width in the file.

    at_least: pixels per side that suffice. A much larger JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, but never
    below twice this size, which saves most of the work.

    Raises BrokenImageError with the name and the reason for content that cannot be decoded: truncated, empty, not an
    image, of a format or mode without a standard meaning in 8 bits, or of more than 80 million pixels. Raises OSError,
    naming the file, where its content cannot be had: it is missing, may not be read, or its disk fails.
    """
    content = file if isinstance(file, bytes) else _content(file)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"it has {width} x {height} pixels")
            if at_least is not None:
                enough = round(GAP * at_least)
                image.draft(None, (enough, enough))  # changes nothing but JPEGs
            image.load()
            orientation = _orientation(image)
            upright = ImageOps.exif_transpose(image) if orientation > 1 else image
            return _rgb(upright), (width, height) if orientation >= 5 else (height, width)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever a damaged file leads them to
        raise BrokenImageError(f"{name}: {_reason(error, content)}") from error


def stretched(picture: Image.Image, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """The whole picture on a square canvas, height and width resized independently (bicubic, anti-aliased)."""
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=GAP)
    return np.asarray(picture)


def center_crop(picture: Image.Image, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """The central square, resized (bicubic, anti-aliased); untouched when the picture is side x side already.

    Where the shorter side is longer than `side`, 7/8 of it are kept: ImageNet's convention (the shorter side to 256,
    then the center 224 x 224), in one resampling. Of a smaller picture all of the shorter side is kept, and enlarged.
    """
    if picture.size != (side, side):
        shorter = min(picture.size)
        crop = shorter * 224 / 256 if shorter > side else shorter
        left, top = ((length - crop) / 2 for length in picture.size)
        box = (left, top, left + crop, top + crop)
        picture = picture.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=GAP)
    return np.asarray(picture)


def _content(file: pathlib.Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:  # that of a failing disk does not name the file
        raise OSError(error.errno, error.strerror, os.fspath(file)) from error


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata do not mean damaged pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("32-bit integers have no standard white level: convert the file to 8 or 16 bits")
        image = Image.fromarray(np.round(levels * (255 / 65535)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point levels have no standard white level: convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {MAX_PIXELS:,} pixels ({error}): shrink it or leave it out"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})" if content else "the file is empty"
    return str(error) or type(error).__name__
