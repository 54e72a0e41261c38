"""Several feature sets of the same images, such as every layer and token of an encoder, in one file.

A set is named LAYER.TOKEN, such as "block03.cls", or STEP.HEAD, such as "step01000.projector", and stored as the array
`features_LAYER.TOKEN`. Sets are in order of depth, or of steps.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dnc import errors
from dnc.names import layer, token
from dnc.types import Array, Float

PREFIX = "features_"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which of an encoder's layers and tokens to take.

    every_layer: all layers, else the last. token: one, such as "cls" or "mean"; None for all.
    """

    every_layer: bool = True
    token: str | None = None

    def of(self, layers: Mapping[str, Float[Array, "b _"]]) -> dict[str, Float[Array, "b _"]]:
        """Raises ValueError for a token that no such layer has."""
        last = layer(list(layers)[-1])
        within = {name: x for name, x in layers.items() if self.every_layer or layer(name) == last}
        found = {name: x for name, x in within.items() if self.token in (None, token(name))}
        if not found:
            raise errors.unknown("features", self.token, dict.fromkeys(map(token, within)))
        return found


def side_by_side(features: Mapping[str, Float[Array, "b _"]]) -> Float[Array, "b d"]:
    """All sets as one array, in their order."""
    return jnp.concatenate(list(features.values()), axis=1)


def widths(layers: Callable[[Array], Mapping[str, Array]], size: tuple[int, int]) -> dict[str, int]:
    """The name and width of every set that `layers` makes of images uint8 [1, *size, 3]."""
    names: list[str] = []

    def ordered(images: Array) -> list[Array]:  # a dict would come out of the trace sorted by key
        made = layers(images)
        names.extend(made)
        return list(made.values())

    made = jax.eval_shape(ordered, jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8))
    return {name: x.shape[1] for name, x in zip(names, made, strict=True)}


def keys(widths: Mapping[str, int]) -> list[str]:
    """The arrays of a file that hold features."""
    return [f"{PREFIX}{name}" for name in widths] or ["features"]


def apart(features: np.ndarray, widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays of a file, by key, of features [n, d] that hold all sets side by side."""
    starts = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(keys(widths), np.split(features, starts, axis=1) if widths else [features], strict=True))


def shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Rows, and the sum of all sets' widths. Raises ValueError where sets have different rows."""
    rows = {found[0] for found in shapes.values()}
    if len(rows) != 1:
        raise ValueError(f"its feature sets have different numbers of rows: {sorted(rows)}")
    return rows.pop(), sum(found[1] for found in shapes.values())
