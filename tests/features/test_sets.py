"""Feature sets: which layers and tokens are chosen, and their order."""

import jax.numpy as jnp
import numpy as np
import pytest

from dnc import names
from dnc.features import sets
from dnc.features.sets import Choice

LAYERS = {
    name: jnp.full((1, index + 1), float(index))
    for index, name in enumerate(["block02.cls", "block02.mean", "block01.cls", "output.cls", "output.mean"])
}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), list(LAYERS)),
        (Choice(every_layer=False), ["output.cls", "output.mean"]),
        (Choice(token="cls"), ["block02.cls", "block01.cls", "output.cls"]),
        (Choice(every_layer=False, token="mean"), ["output.mean"]),
    ],
)
def test_choice(choice, expected):
    assert list(choice.of(LAYERS)) == expected


def test_an_unknown_token_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"features='men'.*'mean'"):
        Choice(token="men").of(LAYERS)


def test_sets_keep_the_order_in_which_the_encoder_gives_them():
    """A dict that goes through a trace comes out sorted by key."""
    widths = sets.widths(lambda images: LAYERS, (4, 4))
    assert widths == {name: x.shape[1] for name, x in LAYERS.items()}
    assert list(widths) == list(LAYERS)
    parts = sets.apart(np.asarray(sets.side_by_side(LAYERS)), widths)
    for name, x in LAYERS.items():
        np.testing.assert_array_equal(parts[f"features_{name}"], x)


def test_names_without_a_dot_are_their_own_layer():
    assert (names.layer("a.b.cls"), names.token("a.b.cls")) == ("a.b", "cls")
    assert (names.layer("only"), names.token("only")) == ("only", "only")
