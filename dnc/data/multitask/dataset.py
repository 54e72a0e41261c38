"""The multitask images as a training set: pairs of views, captions, and a balanced held-out set.

Two kinds of positive pair (`views`): "render" draws the same factors twice with different nuisances, and "augment"
distorts one render twice by image augmentation (which, unlike "render", also changes color and size). With
`keep` below 1, the second render keeps each factor only with that probability. The log density ratio that a
contrastive loss estimates is then a sum over factors, bounded for every factor, so that its optimum is an additive
code; at `keep = 1` it is infinite for any mismatch, and the optimum puts every combination of factors far from all
others. The labels are those of the first view.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial

import grain
import jax
import jax.numpy as jnp
import numpy as np

from dnc import errors
from dnc.data.multitask.captions import TEMPLATES, caption_table
from dnc.data.multitask.render import FACTORS, Factors, render_batch, to_uint8
from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.balanced import balanced_rows
from dnc.data.tokenizer import CONTEXT_LENGTH
from dnc.data.views.augment import ViewBatch, Views, example_keys, standardize_pixels
from dnc.types import Array, Batch, Float, Int, Key

BLOCK = math.prod(len(names) for names in FACTORS.values())  # pictures rendered at once: one compiled program


def factorial(renders: int) -> dict[str, np.ndarray]:
    """Every combination of the factors, `renders` times: labels exactly balanced and independent."""
    sizes = tuple(len(names) for names in FACTORS.values())
    cells = np.indices(sizes).reshape(len(sizes), -1)
    return {name: np.tile(row, renders).astype(np.int32) for name, row in zip(FACTORS, cells, strict=True)}


@dataclasses.dataclass(frozen=True)
class MultitaskImages:
    """A training set of `num_examples` pictures (their factors are a function of seed and index), and its views.

    captions: whether batches have `tokens` of `context_length`: a caption that names the first view's factors, in one
      of a few wordings (see dnc.data.multitask.captions), redrawn in every step.
    """

    num_examples: int = 50_000
    image_size: int = 32
    seed: int = 0
    views: str = "render"
    keep: float = 1.0
    held_out_renders: int = 4
    captions: bool = False
    context_length: int = CONTEXT_LENGTH
    augmentation: Views = dataclasses.field(default_factory=Views)

    def __post_init__(self) -> None:
        if self.views not in ("render", "augment"):
            raise errors.unknown("views", self.views, ("render", "augment"))
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep={self.keep}: give a probability above 0, at most 1.")
        if self.captions:
            caption_table(FACTORS, self.context_length)  # raises where they do not fit

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        return FACTORS

    @property
    def side(self) -> int:
        """Pixels per side of what the network sees."""
        return self.image_size

    def source(self) -> grain.MapDataset:
        """The examples by index: a picture is made on the device from its index alone."""
        return grain.MapDataset.range(self.num_examples).map(lambda index: {"index": np.int32(index)})

    def factors(self, index: Int[Array, "b"]) -> dict[str, Int[Array, "b"]]:
        """The factors of examples, uniform and independent."""
        keys = example_keys(jax.random.key(self.seed), index)
        draws = jax.vmap(lambda key: jax.random.split(key, len(FACTORS)))(keys)
        return {
            name: jax.vmap(jax.random.randint, (0, None, None, None))(draws[:, column], (), 0, len(classes))
            for column, (name, classes) in enumerate(FACTORS.items())
        }

    def _resample(self, keys: Key[Array, "b"], factors: Factors) -> Factors:
        """Each factor kept with probability `keep`, else redrawn (which may give the same class again)."""

        def resample(key: Key[Array, ""], label: Int[Array, ""], classes: int) -> Int[Array, ""]:
            coin_key, class_key = jax.random.split(key)
            fresh = jax.random.randint(class_key, (), 0, classes)
            return jnp.where(jax.random.bernoulli(coin_key, self.keep), label, fresh)

        draws = jax.vmap(partial(jax.random.split, num=len(FACTORS)))(keys)
        return {
            name: jax.vmap(partial(resample, classes=len(classes)))(draws[:, column], factors[name])
            for column, (name, classes) in enumerate(FACTORS.items())
        }

    def _fixed_render(self, index: Int[Array, "b"]) -> Float[Array, "b s s 3"]:
        """One picture of each example, always the same."""
        keys = example_keys(jax.random.key(self.seed + 1), index)
        return render_batch(keys, self.factors(index), self.image_size)

    def make_views(self, batch: Mapping[str, Int[Array, "b"]], key: Key[Array, ""]) -> Batch:
        """Standardized views of each example and its labels; pure, jitted with the step."""
        factors = self.factors(batch["index"])
        keys = example_keys(key, batch["index"])
        if self.views == "render":
            first_key, second_key, keep_key = jax.vmap(partial(jax.random.split, num=3), out_axes=1)(keys)
            both = jax.tree.map(lambda *views: jnp.stack(views), factors, self._resample(keep_key, factors))
            # One call for both views: two would be compiled twice into every training step.
            images = jax.vmap(render_batch, (0, 0, None))(jnp.stack([first_key, second_key]), both, self.image_size)
            pixels = ViewBatch(views=images)
        else:
            pixels = self.augmentation(keys, self._fixed_render(batch["index"]))
        views = Batch(**jax.tree.map(standardize_pixels, pixels), labels=factors)
        if self.captions:
            views["tokens"] = self._captions(jax.random.fold_in(key, self.num_examples), batch["index"], factors)
        return views

    def _captions(self, key: Key[Array, ""], index: Int[Array, "b"], factors: Factors) -> Int[Array, "b t"]:
        """A caption of each example, looked up among those of all combinations; the wording is drawn by `key`."""
        draw = jax.vmap(jax.random.randint, (0, None, None, None))
        wording = draw(example_keys(key, index), (), 0, len(TEMPLATES))
        return jnp.asarray(caption_table(FACTORS, self.context_length))[wording, *(factors[name] for name in FACTORS)]

    def held_out(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The full factorial of the factors as uint8 pictures [n, s, s, 3] and their labels."""
        labels = self.held_out_labels()
        total = BLOCK * self.held_out_renders
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), self.num_examples), total)
        images = []
        for rows in np.split(np.arange(total), self.held_out_renders):
            factors = {name: jnp.asarray(values[rows]) for name, values in labels.items()}
            images.append(np.asarray(to_uint8(render_batch(keys[rows], factors, self.image_size))))
        return np.concatenate(images), labels

    def held_out_labels(self) -> dict[str, np.ndarray]:
        """The labels of `held_out`."""
        return factorial(self.held_out_renders)

    def held_out_images(self) -> ArrayImages:
        """The pictures and labels of `held_out` as a source."""
        return ArrayImages(*self.held_out(), FACTORS)

    def training_images(self, examples: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Pictures of that many training examples, balanced over the factors, and their labels.

        With views="augment" these are the pictures that are augmented; with "render" every step draws new ones, and
        these are further draws of the same examples.
        """
        everything = {name: np.asarray(x) for name, x in self.factors(jnp.arange(self.num_examples)).items()}
        rows = balanced_rows(everything, self.num_examples, examples)
        blocks = np.resize(rows, (-(-examples // BLOCK), BLOCK))  # whole blocks: one shape to compile
        images = [np.asarray(to_uint8(self._fixed_render(jnp.asarray(block, jnp.int32)))) for block in blocks]
        return np.concatenate(images)[:examples], {name: x[rows] for name, x in everything.items()}
