"""The multitask images as a TensorFlow Datasets builder, so that other projects can read them; needs no TensorFlow.

    builder = prepare("data", image_size=32, train_examples=50_000)
    dataset = read(builder, "train").shuffle(seed=0).batch(256)      # a Grain MapDataset

Images are PNG bytes in ArrayRecord files, read back by random access: element i of a split is example i. "train" has
factors drawn uniformly and independently; "test" is the full factorial of the factors, `MultitaskImages.held_out`.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, cast

import grain
import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets.public_api as tfds
from PIL import Image

from dnc.data.multitask.dataset import BLOCK, MultitaskImages
from dnc.data.multitask.render import FACTORS, render_batch, to_uint8
from dnc.data.views.augment import example_keys

_NUISANCES = 2**31 + 1  # random stream of the train split; indices and held-out sets use those up to 2**31


@dataclasses.dataclass(eq=False, kw_only=True)
class MultitaskShapesConfig(tfds.core.BuilderConfig):
    """What one prepared copy holds; its folder is named after these settings.

    `train_examples` pictures with random factors, and `test_renders` pictures of every combination of the factors.
    """

    name: str = ""
    image_size: int = 32
    train_examples: int = 50_000
    test_renders: int = 4
    seed: int = 0

    def __post_init__(self):
        for field in ("image_size", "train_examples", "test_renders"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} = {getattr(self, field)}: give 1 or more")
        self.name = f"{self.image_size}px_{self.train_examples}_train_{self.test_renders}_test_seed_{self.seed}"
        self.description = "Pixels per side, train examples, test renders of each combination of factors, and seed."

    @property
    def images(self) -> MultitaskImages:
        return MultitaskImages(
            num_examples=self.train_examples,
            image_size=self.image_size,
            seed=self.seed,
            held_out_renders=self.test_renders,
        )


class MultitaskShapes(tfds.core.GeneratorBasedBuilder):
    """One object per picture, labeled by color, shape, size and style; everything else about it is random."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (MultitaskShapesConfig(),)

    @property
    def settings(self) -> MultitaskShapesConfig:
        """`builder_config`, with its type."""
        return cast(MultitaskShapesConfig, self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.settings.image_size
        features: dict[str, Any] = {"image": tfds.features.Image(shape=(size, size, 3), encoding_format="png")}
        features |= {factor: tfds.features.ClassLabel(names=list(names)) for factor, names in FACTORS.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # files keep the order of the indices; readers shuffle
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything is rendered
        held_out = self.settings.images.held_out()
        return {
            "train": self._generate_examples(train_blocks(self.settings)),
            "test": self._generate_examples(iter([held_out])),
        }

    def _generate_examples(
        self, blocks: Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]
    ) -> Iterator[tuple[int, dict]]:
        index = 0
        for images, factors in blocks:
            for row, image in enumerate(images):
                labels = {factor: int(values[row]) for factor, values in factors.items()}
                # A PIL image, because TFDS encodes arrays with TensorFlow.
                yield index, {"image": Image.fromarray(image), **labels}
                index += 1


def train_blocks(config: MultitaskShapesConfig) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The train split in order: blocks of uint8 pictures [b, s, s, 3] and their factors.

    The factors of example i are those of `MultitaskImages.factors`; its nuisances depend on seed and i only, so that a
    smaller data set is the beginning of a larger one.
    """
    root = jax.random.fold_in(jax.random.key(config.seed), _NUISANCES)
    for start in range(0, config.train_examples, BLOCK):
        index = jnp.arange(start, start + BLOCK, dtype=jnp.int32)  # whole blocks: one compilation
        keys = example_keys(root, index)
        factors = config.images.factors(index)
        pictures = to_uint8(render_batch(keys, factors, config.image_size))
        kept = min(BLOCK, config.train_examples - start)
        yield np.asarray(pictures)[:kept], {name: np.asarray(values)[:kept] for name, values in factors.items()}


def prepare(
    data_dir: str | os.PathLike[str],
    *,
    image_size: int = 32,
    train_examples: int = 50_000,
    test_renders: int = 4,
    seed: int = 0,
) -> MultitaskShapes:
    """The builder of these settings (see `MultitaskShapesConfig`), its files written below `data_dir` if missing."""
    config = MultitaskShapesConfig(
        image_size=image_size, train_examples=train_examples, test_renders=test_renders, seed=seed
    )
    builder = MultitaskShapes(config=config, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")
    return builder


def read(builder: MultitaskShapes, split: str) -> grain.MapDataset:
    """Examples {"image": uint8 [s, s, 3], factor: class index} of "train" or "test" by index."""
    source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue] (a decorator hides its arguments)
    return grain.MapDataset.source(source)
