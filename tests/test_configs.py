"""Every config in configs/ loads, and describes a step that fits itself."""

import functools
import importlib.util
import inspect
import pathlib

import jax
import numpy as np
import pytest

from dnc import distributed
from dnc.data.sources import by_name
from dnc.data.sources.arrays import ArrayImages
from dnc.training.build import build

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


def shorten(config):
    """Transformers of two blocks: the other blocks are like them, and take long to trace."""
    with config.unlocked():
        depths = [("objective", f"{part}_depth") for part in ("decoder", "predictor", "text")]
        for section, entry in [("model", "depth"), *depths]:
            if "name" in config.model and (section == "model" or entry in config.objective):
                config[section][entry] = 2


@pytest.mark.usefixtures("images_of_any_name")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_builds_its_step(path):
    module, config = config_of(path)
    assert f"--config=configs/{path.name}" in module.__doc__
    shorten(config)
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


def test_all_configs_have_the_same_entries_outside_data_objective_and_vision_transformers():
    """A command line that overrides an entry of one config works with every other."""

    def entries(path):
        config = config_of(path)[1].to_dict()
        model = sorted(config["model"]) if "name" not in config["model"] else ["dtype", "remat"]
        assert set(model) <= set(config["model"])
        groups = {group: sorted(config[group]) for group in ("train", "measure", "probe")}
        return groups | {"groups": sorted(config)}, model

    first, resnet = entries(FILES[0].with_name("quickstart.py"))
    for path in FILES:
        others, model = entries(path)
        assert others == first, path.name
        assert model in (resnet, ["dtype", "remat"]), path.name
