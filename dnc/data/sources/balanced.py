"""Which rows of a labeled set to take: deterministic choices, as even over the classes as their sizes allow.

A class here is a combination of the labels of all tasks; without tasks all rows are of one class. Within each, the
chosen rows are evenly spaced in the set's order.
"""

from collections.abc import Mapping

import numpy as np

from dnc.types import Bool, Int


def balanced_rows(labels: Mapping[str, np.ndarray], n: int, count: int) -> Int[np.ndarray, "rows"]:
    """`count` of n rows, in increasing order: equally many per class, or all of a class that has fewer.

    The remainder goes to classes in a fixed scattered order, so that no class of any one task is favored.
    Raises ValueError unless 1 <= count <= n.
    """
    if not 1 <= count <= n:
        raise ValueError(f"cannot take {count} of {n} images: give a number from 1 to {n}")
    by_class = _by_class(labels, n)
    sizes = np.array([len(rows) for rows in by_class])
    scattered = np.random.default_rng(0).permutation(len(by_class))
    class_of = np.repeat(np.arange(len(by_class)), sizes)
    rank_of = np.concatenate([np.arange(size) for size in sizes])
    first = np.lexsort((scattered[class_of], rank_of))[:count]  # the first of every class, then the second, ...
    quotas = np.bincount(class_of[first], minlength=len(by_class))
    return np.sort(np.concatenate([_evenly_spaced(*pair) for pair in zip(by_class, quotas.tolist(), strict=True)]))


def held_out_rows(labels: Mapping[str, np.ndarray], n: int, test_per_class: int) -> Bool[np.ndarray, "n"]:
    """Whether each of n rows is in the test split, which has `test_per_class` images of each class.

    Raises ValueError where a class would have no test or no training rows.
    """
    by_class = _by_class(labels, n)
    smallest = min(len(rows) for rows in by_class)
    if not 1 <= test_per_class < smallest:
        raise ValueError(
            f"test_per_class = {test_per_class} leaves a split without a class: give 1 to {smallest - 1} "
            f"(the rarest class has {smallest} images)"
        )
    is_test = np.zeros(n, bool)
    is_test[np.concatenate([_evenly_spaced(rows, test_per_class) for rows in by_class])] = True
    return is_test


def _evenly_spaced(rows: Int[np.ndarray, "m"], count: int) -> Int[np.ndarray, "count"]:
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _by_class(labels: Mapping[str, np.ndarray], n: int) -> list[np.ndarray]:
    """The rows of each combination of labels."""
    if not labels:
        return [np.arange(n)]
    combination = np.unique(np.stack(list(labels.values())), axis=1, return_inverse=True)[1].reshape(n)
    return np.split(np.argsort(combination, kind="stable"), np.cumsum(np.bincount(combination))[:-1])
