"""Captions of the multitask images: the factors in words, and nothing else.

Position, rotation, background and the other nuisances are never mentioned: captions of them would have to be drawn
with each picture. "a small striped red triangle" is true of every render of its factors.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from dnc.data.tokenizer import encode
from dnc.types import Int

TEMPLATES = (
    "a {size} {style} {color} {shape}",
    "a {color} {shape}, {style}, of {size} size",
    "a picture of a {size} {color} {shape}, {style}",
    "one {style} {shape}: {size} and {color}",
)


def caption_table(factors: Mapping[str, Sequence[str]], context_length: int) -> Int[np.ndarray, "templates *classes t"]:
    """Tokens of every template for every combination of the factors' classes, in the factors' order.

    Raises ValueError where the longest caption does not fit.
    """
    combinations = [dict(zip(factors, names, strict=True)) for names in itertools.product(*factors.values())]
    captions = [template.format(**names) for template in TEMPLATES for names in combinations]
    longest = max(captions, key=len)
    if len(longest) + 2 > context_length:
        raise ValueError(
            f"context_length={context_length}: the longest caption, {longest!r}, takes {len(longest) + 2} tokens"
        )
    tokens = np.stack([encode(caption, context_length) for caption in captions])
    return tokens.reshape(len(TEMPLATES), *(len(names) for names in factors.values()), context_length)
