"""Captions of the multitask images say what is in the first view, and nothing that is not."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnc.data.multitask import render as multitask
from dnc.data.multitask.captions import TEMPLATES, caption_table
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.multitask.render import FACTORS
from dnc.data.tokenizer import decode

TABLE = caption_table(FACTORS, 64)
FACTOR_OF = {name: factor for factor, names in FACTORS.items() for name in names}


def parsed(tokens):
    """The class of every factor that the words of a caption name; and the other words."""
    words = re.findall(r"\w+", decode(tokens))
    named = [(FACTOR_OF[word], word) for word in words if word in FACTOR_OF]
    assert len(named) == len(FACTORS)
    assert dict(named).keys() == FACTORS.keys()
    numbers = {factor: FACTORS[factor].index(word) for factor, word in named}
    return numbers, {word for word in words if word not in FACTOR_OF}


def test_no_word_names_two_factors():
    assert len(FACTOR_OF) == sum(len(names) for names in FACTORS.values())


@pytest.mark.parametrize("template", range(len(TEMPLATES)))
def test_captions_are_true_of_every_combination_of_factors(template):
    for numbers in itertools.product(*(range(len(names)) for names in FACTORS.values())):
        named, others = parsed(TABLE[template, *numbers])
        assert named == dict(zip(FACTORS, numbers, strict=True))
        assert others <= {"a", "of", "picture", "size", "one", "and"}


def test_batches_have_captions_of_their_first_views(key):
    data = MultitaskImages(num_examples=64, image_size=8, keep=0.5, captions=True)

    @jax.jit
    def make(index, key):
        batch = data.make_views(index, key)
        return {"tokens": batch["tokens"], "labels": batch["labels"]}  # without pictures: compiled sooner

    batch = make({"index": jnp.arange(64, dtype=jnp.int32)}, key)
    for row, tokens in enumerate(np.asarray(batch["tokens"])):
        assert parsed(tokens)[0] == {name: int(values[row]) for name, values in batch["labels"].items()}
    half = make({"index": jnp.arange(32, 64, dtype=jnp.int32)}, key)
    np.testing.assert_array_equal(half["tokens"], batch["tokens"][32:])


def test_wordings_are_drawn_evenly_and_anew_by_every_key():
    data = MultitaskImages(num_examples=2000, captions=True)
    index = jnp.arange(2000, dtype=jnp.int32)
    factors = {name: jnp.zeros(2000, jnp.int32) for name in FACTORS}
    tables = [np.asarray(data._captions(jax.random.key(seed), index, factors)) for seed in (0, 1)]
    wordings = [np.array([np.flatnonzero((TABLE[:, 0, 0, 0, 0] == row).all(axis=1))[0] for row in t]) for t in tables]
    np.testing.assert_allclose(np.bincount(wordings[0]) / 2000, 1 / len(TEMPLATES), atol=0.04)
    assert np.mean(wordings[0] == wordings[1]) == pytest.approx(1 / len(TEMPLATES), abs=0.04)


def test_captions_leave_views_and_labels_as_they_are(key, monkeypatch):
    def noise(keys, factors, image_size):  # in place of a picture: it shows which keys were drawn
        return jax.vmap(lambda key: jax.random.uniform(key, (image_size, image_size, 3)))(keys)

    monkeypatch.setattr(multitask, "render_batch", noise)
    index = {"index": jnp.arange(4, dtype=jnp.int32)}
    without, with_captions = (
        MultitaskImages(image_size=8, captions=captions).make_views(index, key) for captions in (False, True)
    )
    assert "tokens" not in without
    np.testing.assert_array_equal(without["views"], with_captions["views"])
    jax.tree.map(np.testing.assert_array_equal, without["labels"], with_captions["labels"])
