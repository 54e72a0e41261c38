"""Feature sets of several encoders on several labeled sets of images, for `experiments.transferability`.

python -m experiments.candidates --output=candidates simclr=runs/simclr quickstart=runs/quickstart

Workdirs of runs. Their encoders, AugNet's ResNet-50 and principal components of the pixels embed the same images:
CIFAR-10 and Fashion-MNIST (`make data`), scikit-learn's digits, and multitask images that no run has seen, with four
labelings. Of each run `--layers` layers of its encoder at the last checkpoint, evenly spaced, the last among them; its
projector's output; and the backbone at the checkpoint nearest to a tenth of its steps. Of AugNet as many blocks. Text
has no candidates: no package registry ships both encoders and a labeled set.

Writes the images and the features (2.1 GB with two layers of each of eleven networks), and candidates.json.
Interrupted, the same command goes on.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from etils import epath
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from dnc import distributed, files
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.multitask.render import FACTORS
from dnc.data.sources import packaged
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.packages import package
from dnc.features import sets
from dnc.features.embedding import embed, published_encoder
from dnc.features.sets import Choice
from dnc.models.pretrained.load import load_pretrained
from dnc.names import layer
from dnc.training.checkpoint import Checkpoints
from dnc.training.run_encoder import checkpoint_encoder, load_run, trajectory_encoder
from experiments import augnet

_OUTPUT = flags.DEFINE_string("output", None, "Folder of images and features.", required=True)
_LAYERS = flags.DEFINE_integer("layers", 4, "Layers of each network.", lower_bound=1)
_TRAIN = flags.DEFINE_integer("train", 5_000, "Training images of CIFAR-10 and Fashion-MNIST.", lower_bound=1_000)
_TEST = flags.DEFINE_integer("test", 2_000, "Their test images.", lower_bound=100)

PIXELS = 64  # principal components of the training images' pixels
SEED = 17  # of the multitask images, other than the configs'
SPLITS = ("train", "test")


class Source(NamedTuple):
    images: np.ndarray  # uint8 [n, h, w, 3]
    labels: dict[str, np.ndarray]


def image_sets(train: int, test: int) -> Iterator[tuple[str, dict[str, Source]]]:
    """Name and splits of every set of images. Classes of a set are balanced."""
    for name in ("cifar10", "fashion_mnist"):
        raw = packaged.CONFIGS[name].read(package(packaged.CONFIGS[name].package))
        yield name, {split: _balanced(*raw[split], count) for split, count in zip(SPLITS, (train, test), strict=True)}
    pixels, digits = (np.asarray(array) for array in load_digits(return_X_y=True))
    images = np.repeat((pixels.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8), 3, axis=-1)
    rows = train_test_split(np.arange(len(digits)), test_size=0.4, random_state=0, stratify=digits)
    yield "digits", {split: Source(images[r], {"label": digits[r]}) for split, r in zip(SPLITS, rows, strict=True)}
    shown = MultitaskImages(seed=SEED, held_out_renders=3)
    yield "multitask", {"train": Source(*shown.training_images(3_840)), "test": Source(*shown.held_out())}


def _balanced(images: np.ndarray, labels: np.ndarray, count: int) -> Source:
    """The first images of each class, as many of each."""
    k = int(labels.max()) + 1
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[: count // k] for c in range(k)]))
    images = images[rows] if images.ndim == 4 else np.repeat(images[rows][..., None], 3, axis=-1)
    return Source(images, {"label": labels[rows].astype(np.int64)})


def encoders(runs: Mapping[str, str], layers: int) -> Iterator[tuple[str, str, Any, dict[str, str]]]:
    """Network, part, what embeds images, and the feature sets that become candidates: their keys and names."""
    mesh = distributed.make_mesh()
    for name, workdir in runs.items():
        folder = epath.Path(workdir)
        training = load_run(folder, images=False)
        last = checkpoint_encoder(training, folder, mesh, chosen=Choice())
        yield name, "layers", last, _chosen(last.sets, layers)
        checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
        steps = checkpoints.all_steps()
        checkpoints.close()
        early = min(steps, key=lambda step: abs(step - steps[-1] / 10))
        names = {f"{sets.PREFIX}step{early:05}.backbone": f"step {early}, backbone"}
        yield name, "early", trajectory_encoder(training, folder, mesh, [early]), names
    published = published_encoder(load_pretrained(augnet.weights()), mesh, Choice())
    yield "AugNet", "layers", published, _chosen(published.sets, layers)


def _chosen(found: Mapping[str, int], layers: int) -> dict[str, str]:
    """Evenly spaced layers of the encoder, its last among them and the first block not, and what the projector gives;
    of several tokens of a layer the last.
    """
    last_of_layer = list({layer(name): name for name in found if layer(name) != "stem"}.values())
    own = [name for name in last_of_layer if not name.startswith("projector")]
    places = np.linspace(len(own) - 1, 0, layers + 1)[:-1].round().astype(int)
    names = [own[place] for place in sorted({*places.tolist()})] + last_of_layer[len(own) :][-1:]
    return {f"{sets.PREFIX}{name}": name for name in names}


def main(argv: list[str]) -> None:
    runs = dict(argument.split("=", 1) for argument in argv[1:] if "=" in argument)
    if len(runs) < len(argv) - 1:
        raise app.UsageError("give NAME=WORKDIR, once for each run")
    output = pathlib.Path(str(_OUTPUT.value)).absolute()
    sources = dict(image_sets(_TRAIN.value, _TEST.value))
    entries = []

    def add(network: str, data: str, stem: str, keys: Mapping[str, str]) -> None:
        for task in sources[data]["train"].labels:
            entry = {split: str(output / f"{stem}_{split}.npz") for split in SPLITS} | {"network": network}
            target = {"data": f"{data}, {task}" if len(sources[data]["train"].labels) > 1 else data}
            named = {"labels": f"labels_{task}"}
            entries.extend(entry | target | named | {"key": key, "name": name} for key, name in keys.items())

    for data, splits in sources.items():
        pixels = {split: images.reshape(len(images), -1) / 255 for split, (images, _) in splits.items()}
        reduction = PCA(PIXELS, random_state=0, svd_solver="covariance_eigh").fit(pixels["train"])
        for split, (_, labels) in splits.items():
            features = reduction.transform(pixels[split]).astype(np.float32)
            arrays = {"features": features} | {f"labels_{task}": y for task, y in labels.items()}
            files.write_npz(epath.Path(output / f"{data}_pixels_{split}.npz"), arrays)
        add("pixels", data, f"{data}_pixels", {"features": f"{PIXELS} components"})
    for network, part, encoder, keys in encoders(runs, _LAYERS.value):
        for data, splits in sources.items():
            stem = f"{data}_{network}_{part}"
            for split, (images, labels) in splits.items():
                names = FACTORS if data == "multitask" else {"label": [str(c) for c in range(10)]}
                source = ArrayImages(images, labels, names)
                embed(encoder, source, output / f"{stem}_{split}.npz", distributed.make_mesh(), title=f"{data} {split}")
            add(network, data, stem, keys)
    files.write_json(epath.Path(output / "candidates.json"), entries)


if __name__ == "__main__":
    app.run(main)
