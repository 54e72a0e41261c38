import numpy as np
import pytest

from dnc.geometry.shots import check_allocations, check_shots, shots_by_class


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        ([1, 5], (1, 5)),
        (np.array([1, 5]), (1, 5)),
        ([np.int64(2), 3.0], (2, 3)),
        ([[1, 2, 3]], ((1, 2, 3),)),
        ([5, [1, 2, 3], [4, 4, 4]], (5, (1, 2, 3), 4)),
        ({"a": 1, "b": 2, "c": 3}, ((1, 2, 3),)),
        ([{"c": 3, "a": 1, "b": 2}, 7], ((1, 2, 3), 7)),
    ],
)
def test_entries_are_numbers_or_one_for_each_class(shots, expected):
    found = check_allocations(shots, 3, ["a", "b", "c"])
    assert found == expected
    assert shots_by_class(found, 3).shape == (len(expected), 3)


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (5, "must be a sequence of positive integers"),
        ([], "non-empty sequence"),
        ([0], "positive integers"),
        ([[1, 2]], "one for each of 3 classes"),
        ([[1, 2, 0]], "one for each of 3 classes"),
        ({"a": 1, "b": 2}, r"none for \['c'\]"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, r"unknown classes \['d'\]"),
        (["a"], "positive integer"),
        ([1.5], "positive integers"),
    ],
)
def test_what_is_wrong_is_said(shots, message):
    with pytest.raises(ValueError, match=message):
        check_allocations(shots, 3, ["a", "b", "c"])


def test_equal_shots_alone_where_only_they_make_sense():
    with pytest.raises(ValueError, match="positive integers"):
        check_shots([[1, 2]])
    with pytest.raises(ValueError, match="must be a sequence"):
        check_shots({"a": 1})
