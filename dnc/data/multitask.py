"""Synthetic multitask images: one object a picture, four independent labelings, rendered on the accelerator.

A picture shows one object on a plain background. Four **factors** label it: color, shape, size and style (how the
object is drawn). Everything else about it is a **nuisance**, drawn at random: position, rotation, background,
brightness, hue jitter, stroke width, pattern phase and pixel noise. The renderer is a pure function of a key and the
factors, so a data set is a seed, any resolution works, and nothing is stored.

Two kinds of positive pair (`views`): "render" shows the same factors twice with nuisances drawn again, and "augment"
shows one render twice through image augmentation (which, unlike the first, also distorts color and size). With
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

from dnc.data.augment import Shown, Views, standardise
from dnc.data.balanced import balanced_rows
from dnc.data.captions import TEMPLATES, caption_table
from dnc.data.shapes import OUTLINES, signed_distance
from dnc.data.sources import ArrayImages
from dnc.data.tokenizer import CONTEXT_LENGTH
from dnc.types import Array, Batch, Float, Int, Key, UInt8

HUES = {"red": 0.0, "yellow": 50.0, "green": 120.0, "cyan": 182.0, "blue": 230.0, "magenta": 305.0}  # degrees
RADII = {"tiny": 0.155, "small": 0.205, "medium": 0.26, "large": 0.32}  # of the image's side, for the circle
STYLES = ("filled", "outlined", "striped", "dotted")

FACTORS: dict[str, tuple[str, ...]] = {
    "color": tuple(HUES),
    "shape": tuple(OUTLINES),
    "size": tuple(RADII),
    "style": STYLES,
}

Factors = Mapping[str, Int[Array, "*b"]]

_BLOCK = math.prod(len(names) for names in FACTORS.values())  # pictures rendered at once
_PERIOD = 0.14  # of stripes and dots, as a share of the image's side: 4.5 pixels at 32 px


def render(key: Key[Array, ""], factors: Mapping[str, Int[Array, ""]], image_size: int) -> Float[Array, "s s 3"]:
    """One anti-aliased picture with values in [0, 1]; nuisances come from `key`. vmap it for a batch."""
    keys = dict(zip(_NUISANCES, jax.random.split(key, len(_NUISANCES)), strict=True))
    radius = jnp.asarray(list(RADII.values()))[factors["size"]]
    vertices = radius * jnp.asarray(np.stack(list(OUTLINES.values())))[factors["shape"]]

    points = _object_coordinates(keys, jnp.max(jnp.linalg.norm(vertices, axis=-1)), image_size)
    distance = signed_distance(points, vertices)
    coverage = _coverage(keys, distance, points, factors["style"], 1.0 / image_size)

    background = _background(keys, image_size)
    color = _object_color(keys, factors["color"])[None, None]
    image = background + coverage[..., None] * (color - background)
    noise_scale = jax.random.uniform(keys["noise_scale"], maxval=0.03)
    image += noise_scale * jax.random.normal(keys["noise"], image.shape)
    return jnp.clip(image, 0.0, 1.0)


_NUISANCES = (
    "position",
    "rotation",
    "background",
    "gradient",
    "brightness",
    "hue",
    "saturation",
    "stroke",
    "phase",
    "noise_scale",
    "noise",
)


def _object_coordinates(keys: dict, extent: Float[Array, ""], image_size: int) -> Float[Array, "s s 2"]:
    """Pixel centres in the object's frame: moved so that the object stays in the picture, then rotated."""
    centres = (jnp.arange(image_size, dtype=jnp.float32) + 0.5) / image_size - 0.5
    points = jnp.stack(jnp.meshgrid(centres, -centres, indexing="xy"), axis=-1)  # y points up
    room = jnp.clip(0.48 - extent, 0.02, 0.15)
    points -= jax.random.uniform(keys["position"], (1, 1, 2), minval=-1.0) * room
    angle = jax.random.uniform(keys["rotation"], minval=-jnp.pi / 9, maxval=jnp.pi / 9)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return points @ jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _coverage(
    keys: dict,
    distance: Float[Array, "s s"],
    points: Float[Array, "s s 2"],
    style: Int[Array, ""],
    pixel: float,
) -> Float[Array, "s s"]:
    """Share of each pixel that the object covers, by style; every edge is one pixel soft."""

    def cover(signed: Float[Array, "s s"]) -> Float[Array, "s s"]:
        return jnp.clip(0.5 - signed / pixel, 0.0, 1.0)

    stroke = jax.random.uniform(keys["stroke"], minval=0.045, maxval=0.065)
    phase = jax.random.uniform(keys["phase"], (1, 1, 2), maxval=_PERIOD)
    cell = jnp.mod(points + phase, _PERIOD) - _PERIOD / 2  # position within one cell of the pattern
    rim = cover(jnp.abs(distance + 0.016) - 0.016)  # thin, so that the outline shows whatever the pattern
    stripes = cover(jnp.maximum(jnp.abs(cell[..., 1]) - 0.28 * _PERIOD, distance))
    dots = cover(jnp.maximum(jnp.linalg.norm(cell, axis=-1) - 0.36 * _PERIOD, distance))
    drawn = jnp.stack(
        [
            cover(distance),
            cover(jnp.abs(distance + stroke / 2) - stroke / 2),
            jnp.maximum(rim, stripes),
            jnp.maximum(rim, dots),
        ]
    )
    return drawn[style]


def _background(keys: dict, image_size: int) -> Float[Array, "s s 3"]:
    """A dark, nearly gray plane with a slight linear gradient."""
    level = jax.random.uniform(keys["background"], (1, 1, 3), minval=-0.03, maxval=0.03)
    level += jax.random.uniform(jax.random.fold_in(keys["background"], 1), minval=0.05, maxval=0.25)
    slope = jax.random.uniform(keys["gradient"], (2,), minval=-0.08, maxval=0.08)
    ramp = jnp.linspace(-0.5, 0.5, image_size)
    plane = slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return level + plane[..., None]


def _object_color(keys: dict, color: Int[Array, ""]) -> Float[Array, "3"]:
    """Hue, saturation and value to RGB, each jittered."""
    hue = jnp.asarray(list(HUES.values()))[color]
    hue += jax.random.uniform(keys["hue"], minval=-10.0, maxval=10.0)
    saturation = jax.random.uniform(keys["saturation"], minval=0.8, maxval=1.0)
    value = jax.random.uniform(keys["brightness"], minval=0.8, maxval=1.0)
    k = jnp.mod(jnp.array([5.0, 3.0, 1.0]) + hue / 60.0, 6.0)
    return value * (1.0 - saturation * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0))


@partial(jax.jit, static_argnames="image_size")
def render_batch(keys: Key[Array, "b"], factors: Factors, image_size: int) -> Float[Array, "b s s 3"]:
    """`render` for a batch of keys and factors."""
    return jax.vmap(lambda key, one: render(key, one, image_size))(keys, dict(factors))


def factorial(renders: int) -> dict[str, np.ndarray]:
    """Every combination of the factors, `renders` times: labels exactly balanced and independent."""
    sizes = tuple(len(names) for names in FACTORS.values())
    cells = np.indices(sizes).reshape(len(sizes), -1)
    return {name: np.tile(row, renders).astype(np.int32) for name, row in zip(FACTORS, cells, strict=True)}


def to_uint8(images: Float[Array, "*b h w c"]) -> UInt8[Array, "*b h w c"]:
    """[0, 1] to 0..255, rounded to nearest."""
    return jnp.round(images * 255.0).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class MultitaskImages:
    """A training set of `num_examples` pictures (their factors are a function of seed and index), and its views.

    captions: whether batches have `tokens` of `context_length`: a caption that names the first view's factors, in one
      of a few wordings (see dnc.data.captions), drawn anew in every step.
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
            raise ValueError(f"views={self.views!r}: choose 'render' or 'augment'.")
        if not 0.0 < self.keep <= 1.0:
            raise ValueError(f"keep={self.keep}: give a probability above 0, at most 1.")
        if self.captions:
            caption_table(FACTORS, self.context_length)  # raises where they do not fit

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        return FACTORS

    @property
    def side(self) -> int:
        """Pixels a side."""
        return self.image_size

    def source(self) -> grain.MapDataset:
        """The examples by index: a picture is made on the device from its index alone."""
        return grain.MapDataset.range(self.num_examples).map(lambda index: {"index": np.int32(index)})

    def factors(self, index: Int[Array, "b"]) -> dict[str, Int[Array, "b"]]:
        """The factors of examples, uniform and independent."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed), index)
        draws = jax.vmap(lambda key: jax.random.split(key, len(FACTORS)))(keys)
        return {
            name: jax.vmap(jax.random.randint, (0, None, None, None))(draws[:, column], (), 0, len(classes))
            for column, (name, classes) in enumerate(FACTORS.items())
        }

    def _resample(self, keys: Key[Array, "b"], factors: Factors) -> Factors:
        """Each factor kept with probability `keep`, else drawn anew (which may give the same class again)."""

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
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self.seed + 1), index)
        return render_batch(keys, self.factors(index), self.image_size)

    def make_views(self, batch: Mapping[str, Int[Array, "b"]], key: Key[Array, ""]) -> Batch:
        """Standardised views of each example and its labels; pure, jitted with the step."""
        factors = self.factors(batch["index"])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
        if self.views == "render":
            first_key, second_key, keep_key = jax.vmap(partial(jax.random.split, num=3), out_axes=1)(keys)
            both = jax.tree.map(lambda *views: jnp.stack(views), factors, self._resample(keep_key, factors))
            # One renderer for the two views: called twice, it would be compiled twice into every training step.
            images = jax.vmap(render_batch, (0, 0, None))(jnp.stack([first_key, second_key]), both, self.image_size)
            shown = Shown(views=images)
        else:
            shown = self.augmentation(keys, self._fixed_render(batch["index"]))
        views = Batch(**jax.tree.map(standardise, shown), labels=factors)
        if self.captions:
            views["tokens"] = self._captions(jax.random.fold_in(key, self.num_examples), batch["index"], factors)
        return views

    def _captions(self, key: Key[Array, ""], index: Int[Array, "b"], factors: Factors) -> Int[Array, "b t"]:
        """A caption of each example, looked up among those of all combinations; the wording is drawn by `key`."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        wording = jax.vmap(jax.random.randint, (0, None, None, None))(keys, (), 0, len(TEMPLATES))
        return jnp.asarray(caption_table(FACTORS, self.context_length))[wording, *(factors[name] for name in FACTORS)]

    def held_out(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The full factorial of the factors as uint8 pictures [n, s, s, 3] and their labels."""
        factors = self.held_out_labels()
        labels = {name: jnp.asarray(values) for name, values in factors.items()}
        total = len(factors["color"])
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), self.num_examples), total)
        cells = total // self.held_out_renders  # one block a repetition: memory stays small, one program serves all
        images = [
            np.asarray(
                to_uint8(render_batch(keys[block], {name: x[block] for name, x in labels.items()}, self.image_size))
            )
            for block in (slice(start, start + cells) for start in range(0, total, cells))
        ]
        return np.concatenate(images), factors

    def held_out_labels(self) -> dict[str, np.ndarray]:
        """The labels of `held_out`."""
        return factorial(self.held_out_renders)

    def held_out_images(self) -> ArrayImages:
        """The same as a source."""
        return ArrayImages(*self.held_out(), FACTORS)

    def training_images(self, examples: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Pictures of as many training examples, balanced over the factors, and their labels.

        With views="augment" these are the pictures that are augmented; with "render" every step draws new ones, and
        these are others of the same examples.
        """
        everything = {name: np.asarray(x) for name, x in self.factors(jnp.arange(self.num_examples)).items()}
        rows = balanced_rows(everything, self.num_examples, examples)
        blocks = np.resize(rows, (-(-examples // _BLOCK), _BLOCK))  # whole blocks: one program serves all
        images = [np.asarray(to_uint8(self._fixed_render(jnp.asarray(block, jnp.int32)))) for block in blocks]
        return np.concatenate(images)[:examples], {name: x[rows] for name, x in everything.items()}
