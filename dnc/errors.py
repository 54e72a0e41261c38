"""Errors in one wording, whoever raises them: what was given, and what to give instead."""

import difflib
from collections.abc import Collection, Iterable, Iterator


def hint(word: object, known: Iterable[object]) -> str:
    """The known word that `word` is most like, or all of them."""
    words = sorted(map(str, known))
    near = difflib.get_close_matches(str(word), words, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {words}"


def unknown(name: str, value: object, known: Iterable[object]) -> ValueError:
    """The error for a value that must be one of a few; `name` is what the user calls it.

    >>> unknown("bound", "cantelly", ["cantelli", "chebyshev"])
    ValueError("bound='cantelly' is not known: did you mean 'cantelli'?")
    """
    return ValueError(f"{name}={value!r} is not known: {hint(value, known)}")


def check_known(name: str, values: Iterable[object], known: Collection[object]) -> None:
    """Raises that error for the first value that is not known."""
    for value in values:
        if value not in known:
            raise unknown(name, value, known)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, the one that led to it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
