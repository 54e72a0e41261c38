"""Array types and the dimension glossary.

Every public array function is annotated with jaxtyping; one letter means one thing throughout:

    n samples    k classes    d features    m shots (or the number of shot sizes)    t tasks (labelings)
    b batch      h, w, c image height, width, channels    p projection dimension     r repeats

Inside a function body the paper's symbols are used (mu, Sigma, V, W, Theta).
"""

from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

ArrayLike: TypeAlias = jax.Array | np.ndarray

__all__ = ["Array", "ArrayLike", "Bool", "Float", "Int", "Key", "UInt8"]
