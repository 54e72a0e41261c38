"""Probes of rows split over eight devices are those of one device, and features stay where they are."""

import dataclasses
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dnc.probes import knn, linear
from tests.samples import clusters

K, D = 4, 24


@pytest.fixture(scope="module")
def data():
    features, labels = clusters(n=480, k=K, d=D)
    return features[:320], labels[:320], features[320:], labels[320:]


def on_mesh(arrays):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    return [jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))) for x in arrays]


def test_linear_probe(data):
    options = {"num_classes": K, "strengths": (1.0, 1e-2), "tolerance": 1e-5}
    sharded = linear.linear_probe(jax.random.key(0), *on_mesh(data), **options)
    expected = linear.linear_probe(jax.random.key(0), *data, **options)
    for field in dataclasses.fields(expected):
        if field.name not in ("gradient", "iterations"):  # how the fit came to the same optimum
            np.testing.assert_allclose(getattr(sharded, field.name), getattr(expected, field.name), atol=1e-6)


@pytest.mark.parametrize(("metric", "temperature"), [("cosine", 0.07), ("euclidean", None)])
def test_neighbors(data, metric, temperature):
    options = {"num_classes": K, "neighbors": (5, 20), "metric": metric, "temperature": temperature}
    sharded, expected = (knn.knn_accuracy(*arrays, **options) for arrays in (on_mesh(data), data))
    np.testing.assert_allclose(sharded.per_class, expected.per_class, atol=1e-6)


def gathered(text):
    """Sizes of the results of collectives that move arrays rather than sum them."""
    kinds = (" all-gather(", " all-to-all(", " collective-permute(")
    lines = [line.split("=", 1)[1] for line in text.splitlines() if any(kind in line for kind in kinds)]
    shapes = [re.findall(r"\[([\d,]*)\]", line)[0] for line in lines]
    return [math.prod(int(size) for size in shape.split(",") if size) for shape in shapes]


def test_linear_probe_gathers_no_features(data):
    train, labels, test, test_labels = on_mesh(data)
    splits = linear.Split(train, labels), linear.Split(test, test_labels)
    text = linear._probe.lower(jax.random.key(0), *splits, np.float32([1, 0.1]), 0.2, 1e-5, K, 1000).compile().as_text()
    assert " all-reduce(" in text
    assert max(gathered(text), default=0) <= len(labels) < train.size  # labels, to draw the held-back samples
