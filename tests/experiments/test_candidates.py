"""Which feature sets of an encoder become candidates, and of which images."""

import numpy as np
import pytest

from tests.scripts import imported

candidates = imported("experiments.candidates")

RESNET = ["stem.pooled", "block01.pooled", "block02.pooled", "block03.pooled", "block04.pooled"]
VIT = ["block01.cls", "block01.mean", "block02.cls", "block02.mean", "output.cls", "output.mean"]


@pytest.mark.parametrize(
    ("sets", "layers", "expected"),
    [
        (
            [*RESNET, "projector1.pooled", "projector2.pooled"],
            2,
            ["block03.pooled", "block04.pooled", "projector2.pooled"],
        ),
        (RESNET, 1, ["block04.pooled"]),
        (RESNET, 9, RESNET[1:]),
        (VIT, 2, ["block02.mean", "output.mean"]),
    ],
    ids=["with a projector", "the last", "all", "tokens"],
)
def test_layers_are_spread_evenly_and_the_last_is_among_them(sets, layers, expected):
    found = candidates._chosen(dict.fromkeys(sets, 8), layers)
    assert list(found.values()) == expected
    assert list(found) == [f"features_{name}" for name in expected]


def test_classes_are_balanced_and_gray_images_get_three_channels():
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    images = np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2)
    source = candidates._balanced(images, labels, 6)
    assert np.bincount(source.labels["label"]).tolist() == [3, 3]
    assert source.images.shape == (6, 2, 2, 3)
    np.testing.assert_array_equal(source.images[..., 1], images[[0, 1, 2, 3, 4, 6]])
