"""Preprocessing against the image processors of `transformers`, on photographs of odd sizes."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from dnc.models.pretrained.preprocessing import Preprocessing, from_config, from_timm

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])

PUBLISHED = {  # preprocessor_config.json of published checkpoints: the old form with one number, and the new
    "dinov2": dict(
        image_processor_type="BitImageProcessor",
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=3,
        rescale_factor=0.00392156862745098,
        **IMAGENET,
    ),
    "vit_mae": dict(feature_extractor_type="ViTFeatureExtractor", size=224, do_normalize=True, **IMAGENET),
    "ijepa": dict(image_processor_type="ViTImageProcessor", size={"height": 224, "width": 224}, resample=2, **IMAGENET),
    "clip": dict(feature_extractor_type="CLIPFeatureExtractor", size=224, crop_size=224, resample=3),
    "clip_336": dict(feature_extractor_type="CLIPFeatureExtractor", size=336, crop_size=336, resample=3),
    "siglip": dict(
        image_processor_type="SiglipImageProcessor", size={"height": 224, "width": 224}, resample=3, do_center_crop=None
    ),
    "siglip2": dict(image_processor_type="SiglipImageProcessor", size={"height": 256, "width": 256}, resample=2),
    "resnet": dict(feature_extractor_type="ConvNextFeatureExtractor", size=224, crop_pct=0.875, **IMAGENET),
    "resnet_384": dict(image_processor_type="ConvNextImageProcessor", size={"shortest_edge": 384}, **IMAGENET),
    "unnormalized": dict(image_processor_type="CLIPImageProcessor", do_normalize=False),
}


def photographs():
    """Two photographs, cut to odd sizes: wide, tall, and smaller than what it is enlarged to."""
    china, flower = load_sample_images().images
    return [china[:427, :639], flower[3:400, 101:260], china[200:291, 300:413]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_equal_those_of_transformers(name, tmp_path):
    library = pytest.importorskip("transformers")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED[name]))
    processor = library.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    prepare = from_config(PUBLISHED[name])
    for pixels in photographs():
        picture = Image.fromarray(pixels)
        image = prepare.image(picture)
        assert (image.dtype, image.shape) == (np.uint8, (*prepare.size, 3))
        expected = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        actual = np.asarray(prepare.standardize(jnp.asarray(image)))
        np.testing.assert_allclose(actual * prepare.std, expected * prepare.std, atol=1e-3 / 255, rtol=0)


def test_bytes_and_numbers_are_standardized_alike():
    prepare = from_config({})
    image = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    actual = prepare.standardize(jnp.asarray(image))
    np.testing.assert_allclose(actual, prepare.standardize(jnp.asarray(image / np.float32(255))), rtol=1e-6)
    expected = (image / 255 - np.asarray(IMAGENET["image_mean"])) / np.asarray(IMAGENET["image_std"])
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert prepare.standardize(image[0]).shape == (3, 4, 3)


def test_gray_and_transparent_pictures_become_rgb():
    prepare = Preprocessing((4, 4), None, "nearest", (0.0,) * 3, (1.0,) * 3)
    for mode in ("L", "RGBA", "P", "1"):
        assert prepare.image(Image.new(mode, (9, 5))).shape == (4, 4, 3)


def test_a_picture_that_is_not_resized_is_cropped_at_its_center_or_bordered():
    prepare = Preprocessing(None, (3, 3), "bilinear", (0.0,) * 3, (1.0,) * 3)
    picture = np.full((5, 2, 3), 255, np.uint8)
    picture[0] = picture[-1] = 7
    image = prepare.image(Image.fromarray(picture))
    np.testing.assert_array_equal(image[:, :, 0], [[0, 255, 255]] * 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(image_processor_type="DPTImageProcessor"),
            "'DPTImageProcessor', which is not supported: only .*'SiglipImageProcessor'",
        ),
        (dict(do_rescale=False), "rescale_factor 1/255"),
        (dict(rescale_factor=1 / 127.5), "rescale_factor 1/255"),
        (dict(size={"shortest_edge": 224, "longest_edge": 448}), "give height and width"),
        (dict(size={"height": 128, "width": 128}), r"crop=\(224, 224\) is larger"),
        (dict(do_center_crop=False), "resize=256 without a crop"),
        (dict(image_std=[1, 1]), r"std=\(1\.0, 1\.0\): give three"),
        (dict(image_std=[1, 0, 1]), "positive deviations"),
    ],
)
def test_unknown_settings_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        from_config(config)


def test_unknown_interpolations_and_shapes_of_timm_are_refused():
    with pytest.raises(ValueError, match="interpolation='random' is not known"):
        from_timm(dict(input_size=[3, 224, 224], interpolation="random"))
    with pytest.raises(ValueError, match="only center crops to a square"):
        from_timm(dict(input_size=[3, 224, 256]))
