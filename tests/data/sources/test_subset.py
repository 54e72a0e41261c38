import numpy as np
import pytest

from dnc.data.sources.arrays import ArrayImages
from dnc.data.sources.balanced import balanced_rows
from dnc.data.sources.subset import Subset, split


def images(*sizes: int) -> ArrayImages:
    """One class of each size; image i has level i."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    levels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return ArrayImages(
        np.broadcast_to(levels, (len(labels), 2, 3, 3)),
        {"class": labels},
        {"class": [str(c) for c in range(len(sizes))]},
    )


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [((10, 10), 6, [3, 3]), ((10, 2, 10), 12, [5, 2, 5]), ((1, 1, 8), 10, [1, 1, 8]), ((5, 5, 5), 3, [1, 1, 1])],
)
def test_rows_are_as_even_over_classes_as_sizes_allow(sizes, count, expected):
    labels = images(*sizes).labels
    rows = balanced_rows(labels, sum(sizes), count)
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(np.bincount(labels["class"][rows]), expected)
    np.testing.assert_array_equal(rows, balanced_rows(labels, sum(sizes), count))


@pytest.mark.parametrize("count", [1, 5, 100, 432, 500])
def test_several_tasks_are_balanced_together(count):
    """Of a full factorial of 6 x 6 x 4 x 3 classes; without full rounds, no class is much above its share."""
    cells = np.indices((6, 6, 4, 3)).reshape(4, -1)
    labels = {str(task): np.tile(column, 2) for task, column in enumerate(cells)}
    rows = balanced_rows(labels, 864, count)
    assert len(set(rows)) == len(rows) == count
    for task, classes in enumerate((6, 6, 4, 3)):
        share = count / classes
        assert np.bincount(labels[str(task)][rows]).max() <= share + 3 * np.sqrt(share) + 1


def test_without_labels_rows_are_evenly_spaced():
    np.testing.assert_array_equal(balanced_rows({}, 101, 3), [0, 50, 100])


@pytest.mark.parametrize("count", [0, 11])
def test_more_rows_than_there_are_is_refused(count):
    with pytest.raises(ValueError, match=f"cannot take {count} of 10 images"):
        balanced_rows({}, 10, count)


def test_a_split_holds_out_as_many_of_each_class():
    train, test = split(images(6, 9), test_per_class=2)
    np.testing.assert_array_equal(np.bincount(test.labels["class"]), [2, 2])
    np.testing.assert_array_equal(test.rows, [0, 5, 6, 14])
    np.testing.assert_array_equal(np.sort(np.concatenate([train.rows, test.rows])), np.arange(15))
    with pytest.raises(ValueError, match=r"test_per_class = 6 .* give 1 to 5"):
        split(images(6, 9), test_per_class=6)


def test_a_subset_is_its_rows():
    subset = Subset(images(3, 3), np.array([4, 1]))
    np.testing.assert_array_equal(subset.labels["class"], [1, 0])
    assert (len(subset), subset.shape, subset.name(0)) == (2, (2, 3), "image 4")
    assert subset.image(1)[0, 0, 0] == 1
    picture, size = subset.picture(1, at_least=1)
    assert (picture.getpixel((0, 0)), size) == ((1, 1, 1), (2, 3))
