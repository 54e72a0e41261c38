"""Names that users give (of runs, labelings, classes, files), made fit to be shown."""

import itertools
import unicodedata
from collections.abc import Sequence

_CATEGORIES = ("Cc", "Cs", "Co")  # control characters, lone surrogates, private use
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # they reorder the text that follows


def clean(text: object) -> str:
    """`text` on one line; what a terminal obeys, XML refuses or a reader is misled by becomes U+FFFD."""
    return "".join(" " if c.isspace() else "\ufffd" if _is_unfit(c) else c for c in str(text))


def distinct(names: Sequence[str]) -> list[str]:
    """Every name made clean; those that are equal then are told apart by a number, "name (2)".

    A name that was clean keeps its form, and what becomes of a name does not depend on the order of the names.
    """
    shown, taken = list(names), set[str]()
    for index in sorted(range(len(names)), key=lambda i: (clean(names[i]) != names[i], names[i])):
        base = clean(names[index])
        numbered = (f"{base} ({number})" for number in itertools.count(2))
        shown[index] = next(name for name in itertools.chain([base], numbered) if name not in taken)
        taken.add(shown[index])
    return shown


def layer(name: str) -> str:
    """Of a feature set called LAYER.TOKEN, what comes before the last dot: the layer, or the step of training."""
    return name.rpartition(".")[0] or name


def token(name: str) -> str:
    """Of a feature set called LAYER.TOKEN, what comes after the last dot: the token or head."""
    return name.rpartition(".")[2]


def _is_unfit(character: str) -> bool:
    return unicodedata.category(character) in _CATEGORIES or unicodedata.bidirectional(character) in _DIRECTIONS
