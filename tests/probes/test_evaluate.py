import json

import jax
import pytest

from dnc.probes.evaluate import probe_accuracies
from dnc.probes.knn import knn_accuracy, knn_leave_one_out
from dnc.probes.linear import linear_probe
from tests.samples import clusters


def test_every_number_is_that_of_its_probe_and_survives_json():
    features, labels = clusters(n=360, k=4, d=8)
    splits = features[:240], labels[:240], features[240:], labels[240:]
    actual = json.loads(json.dumps(probe_accuracies(jax.random.key(0), *splits, 4), allow_nan=False))
    linear = linear_probe(jax.random.key(0), *splits, 4)
    assert actual == pytest.approx(
        {
            "offline_linear_test": float(linear.offline_test_accuracy),
            "offline_linear_train": float(linear.offline_train_accuracy),
            "offline_linear_strength": float(linear.strength),
            "knn20_test": float(knn_accuracy(*splits, 4, (20,)).accuracy[0]),
            "knn20_train": float(knn_leave_one_out(*splits[:2], 4, (20,)).accuracy[0]),
            "knn200_test": float(knn_accuracy(*splits, 4, (200,)).accuracy[0]),
            "knn200_train": float(knn_leave_one_out(*splits[:2], 4, (200,)).accuracy[0]),
        }
    )


def test_neighbors_that_are_asked_for_are_not_left_out():
    features, labels = clusters(n=60, k=2, d=4)
    with pytest.raises(ValueError, match=r"neighbors=\[200\]"):
        probe_accuracies(jax.random.key(0), features, labels, features, labels, 2, neighbors=[200])
