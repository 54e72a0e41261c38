import concurrent.futures
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from dnc.data.sources import decode as module
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.decode import BrokenImageError, center_crop, decode, stretched


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth color gradient: JPEG and resampling change it little."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1).astype(np.uint8)


def pixels(content: bytes, **options) -> np.ndarray:
    return np.asarray(decode(content, "image", **options)[0])


def rgb(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


GRAY = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
DEEP = Image.fromarray(GRAY.astype(np.uint16) * 257)
PHOTO = Image.fromarray(photo())
MODES = {  # name: (file, expected RGB, tolerance)
    "rgb png": (encoded(PHOTO, "PNG"), photo(), 0),
    "rgb jpeg": (encoded(PHOTO, "JPEG", quality=95), photo(), 6),
    "gray png": (encoded(Image.fromarray(GRAY), "PNG"), rgb(GRAY), 0),
    "gray jpeg": (encoded(Image.fromarray(GRAY), "JPEG", quality=100), rgb(GRAY), 3),
    "1 bit png": (encoded(Image.fromarray(GRAY > 127), "PNG"), rgb(np.where(GRAY > 127, 255, 0)), 0),
    **{f"16 bit {format}": (encoded(DEEP, format), rgb(GRAY), 0) for format in ("PNG", "TIFF", "PPM")},
    "cmyk tiff": (encoded(PHOTO.convert("CMYK"), "TIFF"), photo(), 1),
    "cmyk jpeg": (encoded(PHOTO.convert("CMYK"), "JPEG", quality=98), photo(), 6),
    "palette": (encoded(Image.fromarray(GRAY).convert("P"), "PNG"), rgb(GRAY), 0),
    "webp": (encoded(PHOTO, "WEBP", lossless=True), photo(), 0),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_comes_out_as_rgb(name):
    content, expected, tolerance = MODES[name]
    actual = pixels(content)
    assert actual.dtype == np.uint8
    np.testing.assert_allclose(actual.astype(int), expected, atol=tolerance)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode):
    """Half-transparent black is mid gray, fully transparent is white, whatever color hides there."""
    image = Image.fromarray(np.array([[[0, 255], [0, 128], [0, 0]]], np.uint8), "LA")
    content = encoded(image.convert("RGBA").quantize(4) if mode == "P" else image.convert(mode), "PNG")
    np.testing.assert_allclose(pixels(content)[0, :, 0].astype(int), [0, 127, 255], atol=1)


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(
        pixels(encoded(image, "GIF", transparency=1)), np.array([[[10, 20, 30], [255] * 3]], np.uint8)
    )


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(format):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels(content), np.broadcast_to([255, 0, 0], (8, 8, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_the_size_is_the_upright_one(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a),
    }[orientation]
    picture, size = decode(encoded(Image.fromarray(photo()), "PNG", exif=exif), "image")
    np.testing.assert_array_equal(np.asarray(picture), turned(photo()))
    assert size == np.asarray(picture).shape[:2]


def test_a_large_jpeg_is_decoded_reduced_but_keeps_its_own_size():
    content = encoded(Image.fromarray(photo(600, 800)), "JPEG", quality=95)
    picture, size = decode(content, "image", at_least=64)
    assert size == (600, 800)
    assert picture.size == (200, 150)  # an eighth would be below twice 64
    np.testing.assert_allclose(
        stretched(picture, 64).astype(int), stretched(Image.fromarray(photo(600, 800)), 64), atol=6
    )


JPEG = MODES["rgb jpeg"][0]
PNG = MODES["rgb png"][0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image, whatever its name says", "not an image of a known format"),
        (JPEG[: len(JPEG) // 2], "(?i)truncated"),
        (JPEG[:100], "image: "),
        (PNG[: len(PNG) // 2], "image: "),
        (PNG[:60] + bytes(60) + PNG[120:], "image: "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "floating-point levels"),
        (encoded(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), "32-bit integers"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(content, reason, tmp_path):
    with pytest.raises(BrokenImageError, match=reason):
        decode(content, "image")
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=r"picture\.jpg"):
        decode(path, "picture.jpg")


@pytest.mark.parametrize("side", [9_000, 14_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    header = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(BrokenImageError, match="more than 80,000,000 pixels"):
        decode(header, "bomb")


@pytest.mark.parametrize(
    "failure", [FileNotFoundError(2, "No such file"), PermissionError(13, "Denied"), OSError(5, "EIO")]
)
def test_a_file_that_cannot_be_had_is_not_broken_and_is_named(tmp_path, monkeypatch, failure):
    def read_bytes(_):
        raise failure

    monkeypatch.setattr(pathlib.Path, "read_bytes", read_bytes)
    with pytest.raises(type(failure), match=rf"{failure.strerror}.*none\.png") as caught:
        decode(tmp_path / "none.png", "image 0")
    assert not isinstance(caught.value, BrokenImageError)


def test_damaged_exif_does_not_cost_the_picture():
    content = encoded(Image.fromarray(photo()), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(content), photo())


def test_pictures_of_the_right_size_are_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for prepare in (stretched, center_crop):
        np.testing.assert_array_equal(prepare(Image.fromarray(image), 16), image)


def test_center_crop_is_resize_256_then_crop_224():
    image = Image.fromarray(photo(300, 400))
    resized = image.resize((round(400 * 256 / 300), 256), Image.Resampling.BICUBIC)
    left = (resized.width - 224) // 2
    expected = np.asarray(resized.crop((left, 16, left + 224, 240)))
    np.testing.assert_allclose(center_crop(image, 224).astype(int), expected, atol=2)


def test_a_small_picture_is_enlarged_with_all_of_its_shorter_side():
    image = Image.fromarray(photo(16, 16))
    np.testing.assert_array_equal(center_crop(image, 32), np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))


def test_stretching_keeps_the_whole_picture():
    expected = np.asarray(Image.fromarray(photo(300, 400)).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(stretched(Image.fromarray(photo(300, 400)), 32).astype(int), expected, atol=2)


def test_the_pixel_limit_is_below_pillows_warning():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert module.MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_a_broken_file_is_named_once_by_any_number_of_threads(capsys):
    ledger = BrokenFiles()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ledger.add(f"file {i % 5}", BrokenImageError(f"file {i % 5}: bad")), range(400)))
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split(": ", 1)[1] for line in lines) == [f"file {i}: bad" for i in range(5)]
    assert len(ledger) == 5


@pytest.mark.parametrize(("share", "images"), [(0.01, 299), (0.5, 5)])
def test_only_a_small_share_may_be_broken(share, images):
    ledger = BrokenFiles(share)
    ledger.check(round(share * (images + 1)), images + 1)
    with pytest.raises(
        BrokenImageError, match=rf"3 of {images} images cannot be decoded, .* more than {share} of them"
    ):
        ledger.check(3, images)


@pytest.mark.parametrize("share", ["skip", -0.1, 1.5, float("nan")])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(ValueError, match=r"broken=.*give the largest share"):
        BrokenFiles(share)
