"""Text as tokens: its UTF-8 bytes, so that no vocabulary has to be fetched and every text can be encoded.

The published CLIP and SigLIP merge frequent bytes into up to 49,408 and 32,000 tokens. That shortens captions; the
image encoder, which is what is evaluated, never sees a token.
"""

from collections.abc import Sequence

import numpy as np

from dnc.types import Int

PAD, BEGIN, END = 256, 257, 258
VOCABULARY = 259  # the end token is the last, as in CLIP
CONTEXT_LENGTH = 64


def encode(text: str, context_length: int = CONTEXT_LENGTH) -> Int[np.ndarray, "t"]:
    """BEGIN, the bytes, END, then PAD up to `context_length` tokens, int32.

    Bytes that do not fit are cut off, whole characters at a time; END is always there.
    """
    if context_length < 3:
        raise ValueError(f"context_length={context_length}: give 3 or more, for begin, a byte and end")
    room = context_length - 2
    kept = text.encode()[:room].decode(errors="ignore").encode()  # no partial character at the cut
    tokens = np.full(context_length, PAD, np.int32)
    tokens[: len(kept) + 2] = [BEGIN, *kept, END]
    return tokens


def decode(tokens: Int[np.ndarray, "t"] | Sequence[int]) -> str:
    """The text of those tokens that are bytes."""
    return bytes(int(token) for token in tokens if token < PAD).decode()
