import itertools

import pytest

from dnc.names import clean, distinct


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J\x07", "\ufffd[2J\ufffd"),
        ("a\r\n\u2028b", "a   b"),
        ("exe\u202egnp", "exe\ufffdgnp"),
        ("\u2066x\u2069\x9b", "\ufffdx\ufffd\ufffd"),
        ("\ud800", "\ufffd"),
        ("猫 👩‍🔬 عربي می‌خواهم", "猫 👩‍🔬 عربي می‌خواهم"),
    ],
)
def test_what_a_terminal_obeys_or_a_reader_is_misled_by_is_replaced(name, shown):
    assert clean(name) == shown


def test_names_that_become_equal_stay_distinct_in_any_order():
    names = ["a\x00", "a\ufffd", "a\x01", "b", "a\ufffd (2)"]
    expected = dict(zip(names, ["a\ufffd (3)", "a\ufffd", "a\ufffd (4)", "b", "a\ufffd (2)"], strict=True))
    for order in itertools.permutations(names):
        assert distinct(order) == [expected[name] for name in order]
