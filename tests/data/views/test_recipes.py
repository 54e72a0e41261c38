"""Recipes as published, changed by fields, read from configs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import quickstart, simclr_digits
from dnc.data.views.augment import Augmentation, Views
from dnc.data.views.recipes import RECIPES, choose_views
from dnc.training.build import make_data

STRONG, WEAK = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.2, 0.1)
# crop_scale, crop_method, size, flip, jitter, jitter_probability, gray, blur, blur_sigma, solarize
TABLE = {
    "simclr": [((0.08, 1.0), "bicubic", 224, 0.5, STRONG, 0.8, 0.2, 0.5, (0.1, 2.0), 0.0)] * 2,
    "simclr_cifar": [((0.08, 1.0), "bicubic", None, 0.5, STRONG, 0.8, 0.2, 0.5, (0.1, 2.0), 0.0)] * 2,
    "vicreg": [
        ((0.08, 1.0), "bicubic", 224, 0.5, WEAK, 0.8, 0.2, 1.0, (0.1, 2.0), 0.0),
        ((0.08, 1.0), "bicubic", 224, 0.5, WEAK, 0.8, 0.2, 0.1, (0.1, 2.0), 0.2),
    ],
    "vicreg_cifar": [((0.2, 1.0), "bicubic", None, 0.5, WEAK, 0.8, 0.2, 0.0, (0.1, 2.0), 0.1)] * 2,
    "mae": [((0.2, 1.0), "bicubic", 224, 0.5, STRONG, 0.0, 0.0, 0.0, (0.1, 2.0), 0.0)],
    "crop_flip": [((0.2, 1.0), "bicubic", None, 0.5, STRONG, 0.0, 0.0, 0.0, (0.1, 2.0), 0.0)],
    "dino": [
        ((0.4, 1.0), "bicubic", 224, 0.5, WEAK, 0.8, 0.2, 1.0, (0.1, 2.0), 0.0),
        ((0.4, 1.0), "bicubic", 224, 0.5, WEAK, 0.8, 0.2, 0.1, (0.1, 2.0), 0.2),
    ],
}
DINO_LOCAL = [((0.05, 0.4), "bicubic", 96, 0.5, WEAK, 0.8, 0.2, 0.5, (0.1, 2.0), 0.0)] * 8


def row(view: Augmentation) -> tuple:
    crop = (view.crop_scale, view.crop_method, view.size, view.flip)
    return (*crop, view.jitter, view.jitter_probability, view.gray, view.blur, view.blur_sigma, view.solarize)


@pytest.mark.parametrize("name", TABLE)
def test_recipes_are_the_published_ones(name):
    assert [row(view) for view in RECIPES[name].global_views] == TABLE[name]
    assert [row(view) for view in RECIPES[name].local_views] == (DINO_LOCAL if name == "dino" else [])
    assert all(view.crop_ratio == (3 / 4, 4 / 3) for view in RECIPES[name].global_views)


def test_the_table_names_all_recipes():
    assert set(TABLE) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_views_of_their_sizes(name):
    recipe = RECIPES[name]
    shown = jax.eval_shape(recipe, jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 64, 64, 3)))
    size = recipe.global_views[0].size or 64
    assert shown["views"].shape == (len(recipe.global_views), 2, size, size, 3)
    assert ("local_views" in shown) == (name == "dino")
    if name == "dino":
        assert shown["local_views"].shape == (8, 2, 96, 96, 3)


def test_fields_change_every_view_of_a_recipe():
    changed = choose_views(recipe="dino", flip=0.0, gray=0.1)
    views = [*changed.global_views, *changed.local_views]
    assert {(view.flip, view.gray) for view in views} == {(0.0, 0.1)}
    assert [view.blur for view in views] == [1.0, 0.1] + [0.5] * 8


def test_crop_and_size_change_global_views_and_local_fields_the_others():
    local = dict(size=16, crop_scale=(0.1, 0.3), count=3)
    changed = choose_views(recipe="dino", size=32, crop_scale=(0.3, 1.0), local=local, blur_kernel=3)
    assert {(view.size, view.crop_scale, view.blur_kernel) for view in changed.global_views} == {(32, (0.3, 1.0), 3)}
    assert (
        changed.local_views
        == (dataclasses.replace(RECIPES["dino"].local_views[0], size=16, crop_scale=(0.1, 0.3), blur_kernel=3),) * 3
    )
    assert choose_views(recipe="dino", size=32).local_views == RECIPES["dino"].local_views
    assert choose_views(recipe="dino", local=dict(count=0)).local_views == ()


def test_local_views_can_be_added_to_any_recipe():
    local = dict(count=2, size=16, crop_scale=(0.05, 0.4))
    views = choose_views(recipe="simclr_cifar", local=local)
    expected = dataclasses.replace(RECIPES["simclr_cifar"].global_views[0], size=16, crop_scale=(0.05, 0.4))
    assert views.local_views == (expected, expected)


def test_fields_without_a_recipe_are_two_equal_views():
    assert choose_views() == Views() == Views((Augmentation(), Augmentation()))
    augmentation = Augmentation(gray=0.0, crop_scale=(0.4, 1.0))
    assert choose_views(gray=0.0, crop_scale=(0.4, 1.0)) == Views((augmentation, augmentation))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(recipe="simclr_cifer"), r"augmentation\.recipe='simclr_cifer' is not known: did you mean 'simclr_cifar'"),
        (
            dict(recipe="zzz"),
            r"choose one of \['crop_flip', 'dino', 'mae', 'simclr', 'simclr_cifar', 'vicreg', 'vicreg_cifar'\]",
        ),
        (dict(recipe="mae", solarze=0.1), r"augmentation: the field='solarze' is not known: did you mean 'solarize'"),
        (
            dict(local=dict(crop_scal=(0.1, 0.2))),
            r"augmentation\.local: the field='crop_scal' is not known: .* 'crop_scale'",
        ),
        (dict(recipe="simclr", flip=2.0), r"augmentation\.flip=2\.0: give a probability"),
        (dict(recipe="simclr", local=dict(size=16)), r"augmentation\.local\.count=0: give the number of local views"),
    ],
)
def test_what_does_not_exist_is_named_with_its_neighbors(options, message):
    with pytest.raises(ValueError, match=message):
        choose_views(**options)


def test_configs_choose_views():
    digits = simclr_digits.get_config()
    expected = Augmentation(crop_scale=(0.4, 1.0), flip=0.0, jitter=(0.4, 0.4, 0.0, 0.0), gray=0.0)
    assert make_data(digits.data).augmentation == Views((expected, expected))
    config = quickstart.get_config()
    assert make_data(config.data).augmentation == Views()
    config.data = ConfigDict({**config.data, "augmentation": dict(recipe="vicreg_cifar", crop_scale=[0.5, 1.0])})
    assert [view.crop_scale for view in make_data(config.data).augmentation.global_views] == [(0.5, 1.0)] * 2
