"""The encoder of a run, where the run's images are and where they are not."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from dnc.data.sources.arrays import ArrayImages
from dnc.features.sets import Choice, apart
from dnc.training.build import build
from dnc.training.checkpoint import Checkpoints
from dnc.training.run_encoder import checkpoint_encoder, load_run, trajectory_encoder
from dnc.training.workdir import record_run
from tests.training import tiny
from tests.training.runs import one_device


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder, whose step 0 is saved, beside its images."""
    folder, rng = tmp_path_factory.mktemp("saved"), np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 16, 16, 3), np.uint8)
    with contextlib.chdir(folder):
        np.savez("set.npz", images=images, labels=np.arange(20) % 2)
        config = tiny.get_config().unlock()
        config.data = dict(name="npz", train="set.npz", test_per_class=3, augmentation=dict())
        config.train.batch_size = 4
        config.train.duration = dict(epochs=2)
        config.probe = dict(online=True)
        training = build(config)
        workdir = epath.Path(folder) / "run"
        workdir.mkdir()
        record_run(workdir, training)
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(0, training.init(one_device()), {"pending": []})
    checkpoints.close()
    return folder


@pytest.fixture
def run(saved, tmp_path, monkeypatch):
    """A copy to change."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return epath.Path(tmp_path) / "run", tmp_path / "set.npz"


def test_a_checkpoint_embeds_other_images_where_its_own_are_gone(run):
    workdir, images = run
    source = ArrayImages(np.full((1, 24, 20, 3), 90, np.uint8), {}, {})
    features = []
    for trained_here in (True, False):
        encoder = checkpoint_encoder(load_run(workdir, images=trained_here, trusted=True), workdir, one_device())
        features.append(np.asarray(encoder.encode(encoder.prepare(source, 0)[None])))
        images.unlink(missing_ok=True)
    assert features[0].shape == (1, 32)
    np.testing.assert_array_equal(*features)
    with pytest.raises(FileNotFoundError, match=r"set\.npz"):
        load_run(workdir, trusted=True)


@pytest.mark.parametrize("recorded", [True, False])
def test_paths_in_a_runs_config_are_not_opened_unasked(run, recorded):
    workdir, images = run
    images.unlink()  # opening it would raise FileNotFoundError
    if not recorded:
        (workdir / "data.json").unlink()
    with pytest.raises(ValueError, match=r"says where to open .*train='set\.npz'.* --run_images"):
        load_run(workdir, images=recorded)


def test_other_weights_are_another_encoder(run):
    workdir, _ = run
    training = load_run(workdir, images=False)
    identity = checkpoint_encoder(training, workdir, one_device()).identity
    assert checkpoint_encoder(training, workdir, one_device()).identity == identity
    shutil.rmtree(workdir / "checkpoints")
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = training.init(one_device())
    checkpoints.save(0, state._replace(params=jax.tree.map(lambda x: x + 1, state.params)), {"pending": []})
    checkpoints.close()
    assert checkpoint_encoder(training, workdir, one_device()).identity["weights"] != identity["weights"]


def test_layers_of_a_run_end_with_those_of_its_projector(run):
    workdir, _ = run
    training = load_run(workdir, images=False)
    source = ArrayImages(np.full((1, 16, 16, 3), 90, np.uint8), {}, {})
    own = checkpoint_encoder(training, workdir, one_device())
    every = checkpoint_encoder(training, workdir, one_device(), chosen=Choice())
    assert list(every.sets) == [
        "stem.pooled",
        *(f"block{number:02}.pooled" for number in range(1, 5)),
        "projector1.pooled",
        "projector2.pooled",
    ]
    batch = own.prepare(source, 0)[None]
    parts = apart(np.asarray(every.encode(batch)), every.sets)
    assert {name: x.shape[1] for name, x in parts.items()} == {f"features_{n}": w for n, w in every.sets.items()}
    np.testing.assert_allclose(parts["features_block04.pooled"], own.encode(batch), rtol=1e-5)
    graphdef, state = training.abstract(one_device())[0], training.init(one_device())
    network = nnx.merge(graphdef, state.params, state.rest)
    np.testing.assert_allclose(
        parts["features_projector2.pooled"], network.network.head(own.encode(batch), train=False), rtol=1e-4, atol=1e-6
    )


def test_backbone_and_projector_over_training_are_those_of_each_checkpoint(run):
    workdir, _ = run
    training = load_run(workdir, images=False)
    state = training.init(one_device())
    checkpoints = Checkpoints(workdir / "checkpoints")
    later = state._replace(step=state.step + 7, params=jax.tree.map(lambda x: x * 1.1, state.params))
    checkpoints.save(7, later, {"pending": []})
    checkpoints.close()
    batch = np.full((1, 16, 16, 3), 90, np.uint8)
    over = trajectory_encoder(training, workdir, one_device())
    heads = "backbone", "projector"
    assert list(over.sets) == [f"{step}.{head}" for step in ("step00000", "step00007") for head in heads]
    parts = apart(np.asarray(over.encode(batch)), over.sets)
    for step in (0, 7):
        one = checkpoint_encoder(training, workdir, one_device(), step)
        np.testing.assert_allclose(parts[f"features_step{step:05}.backbone"], one.encode(batch), rtol=1e-5)
    assert list(trajectory_encoder(training, workdir, one_device(), [7]).sets) == [
        f"step00007.{head}" for head in heads
    ]
    with pytest.raises(FileNotFoundError, match=r"step 5: there are \[0, 7\]"):
        trajectory_encoder(training, workdir, one_device(), [5])


def test_the_command_needs_only_the_folder(run, tmp_path):
    workdir, images = run
    images.unlink()
    np.savez(tmp_path / "other.npz", images=np.zeros((5, 20, 16, 3), np.uint8))
    output = tmp_path / "features.npz"
    command = [sys.executable, "-m", "dnc", "embed", f"--workdir={workdir}", f"--images={tmp_path / 'other.npz'}"]
    subprocess.run([*command, "--nolabels", f"--output={output}"], check=True, capture_output=True)
    with np.load(output) as written:
        assert set(written) == {"features", "ids", "embedding"}
        assert written["features"].shape == (5, 32)
    refused = subprocess.run([*command, f"--output={output}.2"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "--nolabels" in refused.stderr.splitlines()[-1]


def test_what_is_recorded_of_the_data_has_no_images(run):
    workdir, _ = run
    recorded, whole = load_run(workdir, images=False), load_run(workdir, trusted=True)
    assert recorded.total_steps == whole.total_steps
    assert recorded.data.class_names == whole.data.class_names
    assert whole.total_steps == 2 * (14 // 4)
    data = recorded.data
    looks = (lambda: data.source()[0], lambda: data.make_views({}, jax.random.key(0)), lambda: data.training_images(1))
    for look in (data.held_out, data.held_out_images, *looks):
        with pytest.raises(FileNotFoundError, match="not the images"):
            look()


def test_a_folder_without_the_record_opens_its_images(run):
    workdir, _ = run
    (workdir / "data.json").unlink()
    assert len(load_run(workdir, images=False, trusted=True).data.held_out()[0]) == 6


@pytest.mark.parametrize("section", ["reading", "probe"])
def test_no_section_of_a_runs_config_can_name_code(run, section):
    """Of those whose name is fixed: what the config calls them does not count."""
    workdir, _ = run
    config = json.loads((workdir / "config.json").read_text())
    holder = config["data"] if section == "reading" else config
    holder[section] = {"online": True} if section == "probe" else {}
    holder[section] |= {"name": "os:system", "command": "touch executed"}
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{section} sets 'command', which '{section}' does not take"):
        load_run(workdir, images=False)
    assert not pathlib.Path("executed").exists()
