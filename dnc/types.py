"""Array types and the dimension glossary.

Every public array function is annotated with jaxtyping; one letter means one thing throughout:

    n samples    k classes    d features    m shots (or the number of shot sizes)    t tasks (labelings)
    b batch      h, w, c image height, width, channels    p projection dimension     r repeats

Inside a function body the paper's symbols are used (mu, Sigma, V, W, Theta).
"""

from collections.abc import Mapping
from typing import NotRequired, TypeAlias, TypedDict

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8, UInt32

ArrayLike: TypeAlias = jax.Array | np.ndarray
Metrics: TypeAlias = dict[str, Float[Array, ""]]

EXAMPLE_AXIS = {"views": 1, "local_views": 1}


class Batch(TypedDict):
    """A training batch. Views of an example are standardized images; labels map a task to class numbers.

    Most objectives take two views. Multi-crop adds smaller local ones. `tokens` are captions, true of the first view,
    all with the same number t of tokens. `progress`, for an objective's own schedules, is
    the share of all training steps that lie behind this one, in [0, 1). Examples are on the axis that `EXAMPLE_AXIS`
    names, in every other entry on the first; a scalar belongs to the whole batch.
    """

    views: Float[Array, "v b h w c"]
    local_views: NotRequired[Float[Array, "l b s s c"]]
    labels: Mapping[str, Int[Array, "b"]]
    tokens: NotRequired[Int[Array, "b t"]]
    progress: NotRequired[Float[Array, ""]]


__all__ = [
    "EXAMPLE_AXIS",
    "Array",
    "ArrayLike",
    "Batch",
    "Bool",
    "Float",
    "Int",
    "Key",
    "Metrics",
    "UInt8",
    "UInt32",
]
