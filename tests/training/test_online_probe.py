"""A run with an online probe: what it logs and saves, and that the run is otherwise the same."""

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from dnc import distributed
from dnc.objectives import OnlineProbe, SimCLR
from dnc.training import loop
from dnc.training.build import build
from tests.training import tiny
from tests.training.runs import metrics, one_device, saved_state

pytestmark = pytest.mark.usefixtures("shallow")
TASKS = ("color", "shape", "size", "style")


def config_of(probe):
    config = tiny.get_config().unlock()
    config.train.duration.steps = 6
    if probe is not None:
        config.probe = probe
    return config


def run(workdir, config):
    loop.train_and_evaluate(config, workdir, one_device())
    graphdef, _ = build(config).abstract(one_device())
    state = saved_state(workdir, config, 6)
    return metrics(workdir), nnx.merge(graphdef, state.params, state.rest)


@pytest.mark.slow
def test_a_run_has_its_numbers_beside_those_of_a_run_without_it(tmp_path):
    all_lines, probed = run(epath.Path(tmp_path / "probed"), config_of(dict(online=True, learning_rate=1e-2)))
    plain_lines, plain = run(epath.Path(tmp_path / "plain"), config_of(None))
    lines = [line for line in all_lines if "loss" in line]
    tests = [line for line in all_lines if "loss" not in line]
    plain_lines = [line for line in plain_lines if "loss" in line]
    assert [{key: one[key] for key in other} for one, other in zip(lines, plain_lines, strict=True)] == plain_lines
    for kind in (nnx.Param, nnx.BatchStat):
        pairs = zip(*(jax.tree.leaves(nnx.state(one, kind)) for one in (probed.network, plain)), strict=True)
        for actual, expected in pairs:
            np.testing.assert_array_equal(actual, expected)
    for path in (tmp_path / "plain" / "measurements").iterdir():
        assert (tmp_path / "probed" / "measurements" / path.name).read_text() == path.read_text()

    for task in TASKS:
        assert all(0 <= line[f"online_train_accuracy_{task}"] <= 1 for line in lines)
        assert [line["step"] for line in tests] == [0, 1, 2, 5, 6]
        assert all(0 <= line[f"online_test_accuracy_{task}"] <= 1 for line in tests)
        assert np.any(probed.classifiers.weights[task][...] != 0)  # restored from the checkpoint
    assert probed.optimizer.step[...] == 6


@pytest.mark.parametrize("probe", [None, dict(online=False)])
def test_it_is_off_by_default(probe):
    assert isinstance(build(config_of(probe)).objective, SimCLR)


def test_layouts_split_its_weights_like_any_other(monkeypatch):
    monkeypatch.setattr(distributed, "MIN_SHARDED_SIZE", 16)
    training = build(config_of(dict(online=True)))
    assert isinstance(training.objective, OnlineProbe)
    mesh = distributed.make_mesh(2, jax.devices()[:8])
    graphdef, state = training.abstract(mesh)
    kernel = nnx.merge(graphdef, state.params, state.rest).classifiers.weights["color"]
    assert "fsdp" in kernel.get_value().sharding.spec
