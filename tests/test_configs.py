"""Every config in configs/ loads, and describes a step that fits itself."""

import functools
import importlib.util
import inspect
import pathlib

import jax
import numpy as np
import pytest

from dnc import distributed
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.pipeline import ReadOptions
from dnc.data.sources import by_name
from dnc.data.sources.arrays import ArrayImages
from dnc.data.views.augment import Augmentation
from dnc.models import MODELS, resnet
from dnc.objectives import OBJECTIVES
from dnc.training.build import PREPARED, build
from dnc.training.measurements import Collapse
from dnc.training.optimizers import OPTIMIZERS
from dnc.training.schedules import UNITS

FILES = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def config_of(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.get_config().lock()


@pytest.fixture
def images_of_any_name(monkeypatch):
    """Data sets that are not in the package are taken for black images, whatever their options say."""

    def black(n, captions=None):
        images = np.broadcast_to(np.zeros((), np.uint8), (n, 32, 32, 3))
        names = [str(c) for c in range(10)]
        texts = None if captions is None else n * ["black"]
        return ArrayImages(images, {"label": np.arange(n) % 10}, {"label": names}, texts)

    def instead_of(load):
        @functools.wraps(load)
        def of_any_name(*args, **kwargs):
            inspect.signature(load).bind(*args, **kwargs)
            return black(50_000, kwargs.get("captions")), black(10_000)

        return of_any_name

    for name in ("tfds", "folder"):
        monkeypatch.setitem(by_name.SOURCES, name, instead_of(by_name.SOURCES[name]))


def shorten(config, monkeypatch):
    """Transformers of two blocks, stages of one: the other blocks are like them, and take long to trace."""
    for depth, (block, stages) in resnet.ARCHITECTURES.items():
        monkeypatch.setitem(resnet.ARCHITECTURES, depth, (block, len(stages) * (1,)))
    with config.unlocked():
        depths = [("objective", f"{part}_depth") for part in ("decoder", "predictor", "text")]
        for section, entry in [("model", "depth"), *depths]:
            if config.model.name != "resnet" and (section == "model" or entry in config.objective):
                config[section][entry] = 2


@pytest.mark.usefixtures("images_of_any_name")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds_its_step(path, monkeypatch):
    module, config = config_of(path)
    assert f"--config=configs/{path.name}" in module.__doc__
    shorten(config, monkeypatch)
    training, mesh = build(config), distributed.make_mesh(devices=jax.devices()[:1])
    distributed.check_divisible(mesh, config.train.batch_size, config.train.accumulate)
    graphdef, state = training.abstract(mesh)
    step = training.step(graphdef)
    size = config.train.batch_size
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *np.shape(x)), np.asarray(x).dtype), training.data.source()[0]
    )
    after, metrics = jax.eval_shape(step, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == ()


def options_of(factory, *given_elsewhere):
    parameters = inspect.signature(factory).parameters.values()
    named = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
    return named - {"self", "rngs", "channels", *given_elsewhere}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_option_is_present_so_that_a_flag_can_set_it(path):
    config = config_of(path)[1].to_dict()
    data, optimizer = config["data"], config["optimizer"]
    is_multitask = data["name"] == "multitask"
    source = MultitaskImages if is_multitask else by_name.SOURCES[data["name"]]
    expected = {
        "data": {
            "name",
            "reading",
            *options_of(source),
            "augmentation",
            *(() if is_multitask else (*PREPARED, "broken")),
        },
        "model": {"name", *options_of(MODELS[config["model"]["name"]].__init__)},
        "objective": {"name", *options_of(OBJECTIVES[config["objective"]["name"]])},
        "optimizer": {"name", *options_of(OPTIMIZERS[optimizer["name"]], "learning_rate")}
        | {"clip_norm", "weight_decay_end"},
        "schedule": {"peak", "warmup", "end_fraction"},
        "train": {"batch_size", "duration", "accumulate", "log_every", "checkpoint_every"},
        "measure": {"collapse"},
        "probe": {"online", "learning_rate"},
    }
    assert {section: set(config[section]) for section in expected} == expected
    assert set(config) == {"seed", *expected}
    assert set(data["reading"]) == options_of(ReadOptions)
    assert set(data["augmentation"]) - {"local"} == {"recipe", *options_of(Augmentation)}
    assert set(data["augmentation"].get("local", {"count": 1})) >= {"count"}
    assert set(config["measure"]["collapse"]) == options_of(Collapse)
    for duration in (config["train"]["duration"], config["schedule"]["warmup"]):
        assert set(duration) == set(UNITS)
        assert sum(value is not None for value in duration.values()) == 1
