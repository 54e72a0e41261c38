"""Errors that say what an unknown word may have meant."""

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """The known word that `word` is most like, or all of them."""
    near = difflib.get_close_matches(str(word), known := sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {known}"
