import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc.data.tokenizer import BEGIN, CONTEXT_LENGTH, END, PAD, VOCABULARY, decode, encode

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_tokens_by_hand():
    np.testing.assert_array_equal(encode("aé", 7), [BEGIN, 97, 0xC3, 0xA9, END, PAD, PAD])
    assert encode("aé", 7).dtype == np.int32
    assert len(encode("")) == CONTEXT_LENGTH
    assert END == VOCABULARY - 1  # where CLIP's text Transformer looks for it


@given(TEXTS)
def test_text_that_fits_comes_back(text):
    tokens = encode(text, len(text.encode()) + 3)
    assert decode(tokens) == text
    assert np.sum(tokens == END) == 1


@given(TEXTS, st.integers(3, 20))
def test_what_does_not_fit_is_cut_between_characters_and_still_ended(text, context_length):
    tokens = encode(text, context_length)
    assert len(tokens) == context_length
    assert text.startswith(decode(tokens))
    assert len(text.encode()) - len(decode(tokens).encode()) == 0 or len(decode(tokens).encode()) > context_length - 6
    (end,) = np.flatnonzero(tokens == END)
    assert np.all(tokens[end + 1 :] == PAD)
    assert tokens[0] == BEGIN


def test_a_context_without_room_is_refused():
    with pytest.raises(ValueError, match="context_length=2: give 3 or more"):
        encode("a", 2)
