"""Features of augmented views, for LiDAR."""

import jax
import numpy as np
import pytest

from dnc import distributed, record
from dnc.geometry.spectrum import lidar
from dnc.training import loop
from dnc.training.build import build
from dnc.training.run_encoder import VIEWS, make_view_embedder
from tests.training import tiny
from tests.training.runs import one_device

pytestmark = pytest.mark.usefixtures("shallow")


def views_of(devices, images=6):
    mesh = distributed.make_mesh(devices=jax.devices()[:devices])
    training = build(tiny.get_config())
    graphdef, _ = training.abstract(mesh)
    state = training.init(mesh)
    return make_view_embedder(training, graphdef, mesh, images)(state.params, state.rest)


def test_views_are_of_each_image_and_do_not_depend_on_the_devices():
    one, eight = views_of(1), views_of(8)
    assert one.shape == (6, VIEWS, one.shape[2])
    np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-5)
    distances = np.linalg.norm(one[:, :, None] - one[:, None], axis=-1)
    assert (distances + np.eye(VIEWS)[None] > 1e-6).all()  # no view is drawn twice


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"lidar_examples=65: there are 64"):
        views_of(1, images=65)


@pytest.mark.slow
def test_a_run_measures_lidar(tmp_path):
    config = tiny.get_config().unlock()
    config.train.duration.steps = 3
    config.measure.collapse.lidar_examples = 6
    last = loop.train_and_evaluate(config, tmp_path / "run", one_device())
    first = record.load(tmp_path / "run" / "measurements" / "step_00000000.json")
    assert first.spectrum["lidar"] == pytest.approx(float(lidar(views_of(1))), rel=1e-4)
    assert 1 <= last.spectrum["lidar"] <= 6
