"""Every probe of one task at once, as named numbers for a results file."""

from collections.abc import Sequence

import jax
import numpy as np

from dnc.geometry.inputs import as_codes, as_numbers, converted
from dnc.probes.knn import NEIGHBORS, knn_accuracy, knn_leave_one_out
from dnc.probes.linear import linear_probe
from dnc.types import ArrayLike, Float, Int, Key


@converted(train_features=as_numbers, train_labels=as_codes, test_features=as_numbers, test_labels=as_codes)
def probe_accuracies(
    key: Key[jax.Array, ""],
    train_features: Float[ArrayLike, "n d"],
    train_labels: Int[ArrayLike, " n"],
    test_features: Float[ArrayLike, "q d"],
    test_labels: Int[ArrayLike, " q"],
    num_classes: int,
    *,
    neighbors: Sequence[int] | None = None,
) -> dict[str, float]:
    """Accuracies of the offline linear probe and of weighted cosine k-NN, as plain numbers that JSON can hold.

    offline_linear_test, offline_linear_train: of `linear_probe`; offline_linear_strength is the strength it chose.
    knn20_test, knn20_train: of `knn_accuracy`, and of `knn_leave_one_out` on the training samples. By default k is 20
    and 200, each only where there are more training samples than k.

    Raises what these functions raise.
    """
    splits = train_features, train_labels, test_features, test_labels
    sizes = tuple(k for k in NEIGHBORS if k < len(train_labels)) if neighbors is None else tuple(neighbors)
    values = {}
    if sizes:
        test = knn_accuracy(*splits, num_classes, sizes)
        train = knn_leave_one_out(train_features, train_labels, num_classes, sizes)
        values |= {f"knn{k}_test": accuracy for k, accuracy in zip(sizes, test.accuracy, strict=True)}
        values |= {f"knn{k}_train": accuracy for k, accuracy in zip(sizes, train.accuracy, strict=True)}
    linear = linear_probe(key, *splits, num_classes)
    values |= {
        "offline_linear_test": linear.offline_test_accuracy,
        "offline_linear_train": linear.offline_train_accuracy,
        "offline_linear_strength": linear.strength,
    }
    return {name: float(np.asarray(value)) for name, value in values.items()}
