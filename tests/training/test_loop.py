"""A run from start to report: what it leaves, what it refuses, and that a killed run ends as an unbroken one does."""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from dnc import distributed, record
from dnc.data.multitask.dataset import MultitaskImages
from dnc.report.run import load
from dnc.training import loop
from dnc.training.build import build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.window import NonFiniteLossError
from dnc.training.workdir import claimed
from tests import quickly
from tests.training import tiny
from tests.training.runs import assert_same_bits, kill_when, metrics, one_device, saved_state, stop_after_every_step


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("run"))
    return workdir, loop.train_and_evaluate(tiny.get_config(), workdir, one_device())


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, [0, 1]), (10, [0, 1, 2, 5, 10]), (120, [0, 1, 2, 5, 10, 20, 50, 100, 120])],
)
def test_measured_steps_are_log_spaced_with_zero_and_the_last(total, expected):
    assert loop.log_spaced_steps(total) == expected


def test_a_run_leaves_its_numbers_and_its_report(finished):
    workdir, analysis = finished
    assert analysis.step == 8
    assert analysis.to_json() == json.loads((workdir / "measurements" / "step_00000008.json").read_text())
    measured = sorted(path.name for path in (workdir / "measurements").iterdir())
    assert measured == [f"step_{step:08d}.json" for step in (0, 1, 2, 5, 8)]
    trained, measured = ([line for line in metrics(workdir) if ("loss" in line) == is_trained] for is_trained in (1, 0))
    assert [line["step"] for line in trained] == list(range(1, 9))
    assert {"loss", "gradient_norm", "learning_rate", "examples", "epoch"} <= trained[0].keys()
    assert [line["step"] for line in measured] == [0, 1, 2, 5, 8]
    color = analysis.tasks["color"]
    assert measured[-1]["cdnv_color"] == color.mean_cdnv
    assert measured[-1]["directional_cdnv_color"] == color.mean_directional_cdnv
    assert [measured[-1][f"few_shot_error_color_{m}"] for m in (1, 5)] == color.error.mean.tolist()
    timing = [json.loads(line) for line in (workdir / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timing] == list(range(1, 9))
    assert {"examples_per_second", "input_seconds_per_step", "step_seconds_per_step", "input_share"} <= timing[0].keys()
    assert any("measurement_seconds" in line and "checkpoint_seconds" in line for line in timing)
    assert json.loads((workdir / "config.json").read_text())["train"]["batch_size"] == 16
    assert "jax" in json.loads((workdir / "environment.json").read_text())["packages"]
    assert any((workdir / "tensorboard").iterdir())
    assert (workdir / "images" / "contact_sheet.png").exists()
    page = (workdir / "report" / "index.html").read_text()
    assert "Directional" in page
    shown = page.split('<section id="hard">')[1].split("</section>")[0]
    assert shown.count("<img src=") == sum(len(task.hardest) for task in analysis.tasks.values()) == 12 * 4
    for step in (0, 1, 2, 5, 8):
        tasks = record.load(workdir / "measurements" / f"step_{step:08d}.json").tasks.values()
        assert all((task.guarantee is not None) == (step == 8) for task in tasks), "it takes seconds a task"


def test_the_hardest_images_of_a_run_are_those_of_its_record(finished):
    workdir, analysis = finished
    images = build(tiny.get_config()).data.held_out()[0]
    for task, pictures in load(os.fspath(workdir)).thumbnails.items():
        assert list(pictures) == [sample.row for sample in analysis.tasks[task].hardest]
        for row, picture in pictures.items():
            scale = picture.height // images.shape[1]
            np.testing.assert_array_equal(np.asarray(picture)[::scale, ::scale], images[row])


def test_no_measured_error_is_above_a_certificate_and_no_cosine_above_its_bound(finished):
    workdir, _ = finished
    compared = 0
    for path in (workdir / "measurements").iterdir():
        analysis = json.loads(path.read_text())
        assert all(pair["violations"] == 0 for pair in analysis["axes"].values())
        for task in analysis["tasks"].values():
            for certificate in task["certificates"].values():
                if certificate["is_certificate"]:
                    valid = np.array(certificate["valid"])
                    assert np.all((np.array(task["error"]["mean"]) <= np.array(certificate["bound"]) + 1e-6)[valid])
                    compared += int(valid.sum())
    assert compared >= 5 * 4 * 4 * 2  # measurements, tasks, certificates, shots


def test_measured_steps_keep_their_checkpoints(finished):
    workdir, _ = finished
    assert Checkpoints(workdir / "checkpoints", read_only=True).all_steps() == [0, 1, 2, 5, 6, 8]
    first, last = (jax.tree.leaves(saved_state(workdir, tiny.get_config(), step)) for step in (0, 8))
    assert any(np.any(a != b) for a, b in zip(first, last, strict=True))


def test_a_finished_run_started_again_only_writes_its_report(finished):
    workdir, analysis = finished
    before = metrics(workdir)
    again = loop.train_and_evaluate(tiny.get_config(), workdir, one_device())
    assert metrics(workdir) == before
    np.testing.assert_array_equal(again.tasks["color"].directional_cdnv, analysis.tasks["color"].directional_cdnv)


@pytest.mark.slow
def test_a_run_stopped_after_every_step_ends_as_an_unbroken_one(finished, tmp_path):
    workdir, _ = finished
    stop_after_every_step(tiny.get_config(), tmp_path)
    assert metrics(tmp_path) == metrics(workdir)
    assert_same_bits(*(saved_state(run, tiny.get_config()) for run in (tmp_path, workdir)))


def test_a_workdir_in_use_is_refused(finished):
    workdir, _ = finished
    plan = loop.prepare(tiny.get_config(), workdir, one_device())
    with claimed(workdir), pytest.raises(BlockingIOError, match="in use by another process"):
        loop.run(plan, workdir, one_device())


@pytest.mark.slow
def test_training_images_are_measured_beside_the_held_out_ones_and_a_trace_is_written(tmp_path):
    config, workdir = tiny.get_config(), epath.Path(tmp_path)
    config.data.num_examples = 256
    config.measure.collapse.update(train_examples=120, shots=(1,))
    config.train.duration.steps = 5
    loop.run(loop.prepare(config, workdir, one_device()), workdir, one_device(), profile=(2, 4))
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))
    assert list(tmp_path.glob("profile/**/perfetto_trace.json.gz"))
    for name in (path.name for path in tmp_path.glob("measurements/step_*.json")):
        held_out, trained_on = (record.load(workdir / "measurements" / f / name) for f in ("", "train"))
        assert (held_out.step, held_out.samples) == (trained_on.step, 576)
        assert trained_on.samples == 120
    assert "trained on" in (workdir / "report" / "index.html").read_text()


def test_a_run_of_another_config_is_refused_and_the_difference_named(finished):
    workdir, _ = finished
    config = tiny.get_config()
    config.objective.temperature = 0.3
    with pytest.raises(ValueError, match=r"config.objective.temperature was 0.07 and is now 0.3"):
        loop.train_and_evaluate(config, workdir, one_device())


@pytest.mark.parametrize(
    ("class_names", "changes", "message"),
    [
        ({}, {}, "held-out images have no labels"),
        (
            {"class": ("a", "b")},
            {"measure.collapse.train_examples": 9},
            "train_examples=9: the training images",
        ),
        ({"class": ("a", "b")}, {"probe.online": True}, "online=True learns from labels, and the training images have"),
    ],
)
def test_labels_that_are_missing_are_named(class_names, changes, message, tmp_path, monkeypatch):
    class Unlabeled(MultitaskImages):
        def source(self):
            return [{"index": np.int32(0), "labels": {}}]

        def held_out_labels(self):
            return {}

        def make_views(self, batch, key):
            return {**super().make_views(batch, key), "labels": {}}

    Unlabeled.class_names = class_names
    config = tiny.get_config()
    config.update_from_flattened_dict(changes)
    monkeypatch.setattr(loop, "build", lambda config: dataclasses.replace(build(config), data=Unlabeled()))
    with pytest.raises(ValueError, match=message):
        loop.prepare(config, epath.Path(tmp_path), one_device())


SMALL_CLIP = {"name": "clip", "text_width": 8, "text_depth": 1, "text_heads": 1, "context_length": 32}
UNCHANGED = {"crop_scale": (20.0, 20.0), "flip": 0.0, "jitter_probability": 0.0, "gray": 0.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"measure.collapse.shots": (1, 1000)},
            r"config.measure.collapse: shots=.*1000 shots need 1001 held-out images of every class, and .* 'color'",
        ),
        (
            {"data.captions": True, "objective": SMALL_CLIP},
            "captions have 64 tokens and the text Transformer 32",
        ),
        ({"objective.name": "supervised"}, "config.objective sets .*temperature.*, which 'supervised' does not take"),
        ({"model.depth": 17}, "depth=17 is not known: choose one of"),
        ({"measure.normalize": True}, "normalize=True: give measurements, .* as in config.measure.collapse.normalize"),
        ({"measure.collapse.lidar_examples": 9999}, "measure.collapse: lidar_examples=9999: there are 64 training"),
        ({"probe": {"online": True, "task": "color"}}, r"config\.probe sets 'task'"),
        ({"train.accumulate": 0}, "accumulate=0: give the number of micro-batches, 1 or more"),
        ({"train.accumulate": 2}, "accumulate=2: simclr couples"),
        ({"train.batch_size": 12}, "batch_size=12 does not divide over 8 devices"),
        ({"data.views": "augment", "data.augmentation": UNCHANGED}, "same picture"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_written(changes, message, tmp_path):
    config = tiny.get_config().unlock()
    for entry, value in changes.items():
        *path, name = entry.split(".")
        functools.reduce(getattr, path, config)[name] = value
    mesh = distributed.make_mesh(devices=jax.devices()[: 8 if "devices" in message else 1])
    with pytest.raises(ValueError, match=message) as error:
        loop.train_and_evaluate(config, tmp_path / "run", mesh)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config = tiny.get_config()
    config.schedule.peak = 1e30
    config.train.log_every = 100  # found at the next save all the same
    with pytest.raises(NonFiniteLossError, match=r"step \d+: .*last good checkpoint is of step \d+"):
        loop.train_and_evaluate(config, tmp_path, one_device())
    assert_finite(tmp_path)


@pytest.mark.slow
def test_a_batch_that_is_not_finite_stops_the_run_at_its_step(tmp_path):
    plan = loop.prepare(tiny.get_config(), epath.Path(tmp_path), one_device())
    object.__setattr__(plan.training, "data", NotFiniteAt(plan.training.data, batch=4))
    with pytest.raises(NonFiniteLossError, match=r"step 5: .*last good checkpoint is of step 3"):
        loop.run(plan, epath.Path(tmp_path), one_device())
    assert_finite(tmp_path)


def assert_finite(workdir):
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(saved_state(workdir, tiny.get_config())))


class NotFiniteAt:
    """Training data with one bad batch."""

    def __init__(self, data, batch):
        self._data, self._batch = data, batch

    def __getattr__(self, name):
        return getattr(self._data, name)

    def make_views(self, batch, key):
        views = self._data.make_views(batch, key)
        first = jax.random.key_data(jax.random.split(jax.random.fold_in(root_key(tiny.get_config()), self._batch))[0])
        bad = (jax.random.key_data(key) == first).all()
        return {**views, "views": jnp.where(bad, jnp.nan, views["views"])}


def train(workdir, *flags: str) -> subprocess.Popen:
    environment = os.environ | {"XLA_FLAGS": quickly.XLA_FLAGS, "PYTHONPATH": os.getcwd()}  # one device
    command = [sys.executable, "-m", "dnc", "train", f"--config={tiny.__file__}", f"--workdir={workdir.name}"]
    command += flags or ["--config.train.duration.steps=8"]
    workdir.parent.mkdir(exist_ok=True)
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, env=environment, cwd=workdir.parent, start_new_session=True, **streams)


@pytest.mark.slow
def test_ctrl_c_saves_and_a_deleted_folder_is_one_line(tmp_path):
    endless = "--config.train.duration.steps=100000"
    run = train(workdir := tmp_path / "run", endless)
    while run.poll() is None and len(metrics(workdir)) < 5:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 75, output
    assert "stopped by Ctrl-C; saved, start again to go on" in output.splitlines()[-1]
    saved = len(metrics(workdir))

    run = train(workdir, endless)
    while run.poll() is None and len(metrics(workdir)) <= saved:
        time.sleep(0.05)
    while workdir.exists() and run.poll() is None:
        shutil.rmtree(workdir, ignore_errors=True)
    output, _ = run.communicate(timeout=100)
    assert run.returncode == 1
    assert "was deleted or moved while the run wrote to it" in output.splitlines()[-1]
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_killed_run_started_again_ends_in_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"  # a page bears its run's name
    output, _ = (run := train(whole)).communicate()
    assert run.returncode == 0, output

    target = int(np.random.default_rng().integers(1, 6))
    kill_when(train(killed), lambda: len(metrics(killed)) >= target)

    output, _ = (run := train(killed)).communicate()
    assert run.returncode == 0, output
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    pages = [(run / "report/index.html").read_text() for run in (killed, whole)]
    undated = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page) for page in pages]  # when it was measured
    assert undated[0] == undated[1] != pages[1]
    assert_same_bits(*(saved_state(run, tiny.get_config()) for run in (killed, whole)))
