"""What a run's folder has lost is written again or named, and no measurement ends a run."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from dnc import files, record
from dnc.report import over_time, style
from dnc.report.run import load
from dnc.training import loop, measurements
from dnc.training.build import build
from dnc.training.measurements import Collapse, Measurement, Subject
from dnc.training.run_encoder import load_run
from dnc.training.workdir import record_run
from dnc.training.writers import MetricWriter
from tests.training import tiny
from tests.training.runs import metrics, one_device


def config_of(**changes):
    config = tiny.get_config()
    config.update_from_flattened_dict({"train.duration.steps": 2, "schedule.warmup.steps": 0, **changes})
    return config


@pytest.fixture(scope="module", autouse=True)
def page():
    """In place of a page, whose figures take ten seconds: what it is made of is read, and the file is there."""

    def write(workdir, output):
        load(workdir)
        files.write_text(epath.Path(output) / "index.html", "")
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_report", write)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished") / "run"
    loop.train_and_evaluate(config_of(), workdir, one_device())
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    """A copy to damage."""
    return shutil.copytree(finished, tmp_path / "run")


def again(workdir, config=None):
    return loop.train_and_evaluate(config_of() if config is None else config, workdir, one_device())


@pytest.mark.parametrize("content", [None, '{"seed": 0, "da'])
def test_side_files_that_are_missing_or_cut_short_are_written_again(content, run, finished, capsys):
    for name in ("config.json", "data.json"):
        damage(run / name, content)
    damage(run / "measurements" / "step_00000001.json", content)
    damage(run / "metrics.jsonl", content)
    again(run)
    for name in ("config.json", "data.json", "measurements/step_00000001.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    output = capsys.readouterr().out
    assert "config.json was missing or damaged: written again" in output
    assert "data.json was missing or damaged: written again" in output
    assert "step 1: collapse is missing or damaged: measured again" in output
    assert "metrics.jsonl has lost 2 of its lines, of steps 1 to 2" in output


def damage(path, content):
    path.unlink() if content is None else path.write_text(content)


@pytest.mark.parametrize("content", [None, '{"seed": 0, "da'])
def test_without_config_json_the_checkpoint_tells_of_which_config_the_run_is(content, run):
    damage(run / "config.json", content)
    with pytest.raises(ValueError, match=r"another config: config\.seed was 0 and is now 3"):
        loop.prepare(config_of(seed=3), epath.Path(run), one_device())
    assert load_run(epath.Path(run)).total_steps == 2
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ValueError, match="tells of which config" if content is None else r"config\.json' is not valid"):
        loop.prepare(config_of(), epath.Path(run), one_device())


def test_a_start_that_failed_is_not_a_run(run):
    for name in ("checkpoints", "measurements"):
        shutil.rmtree(run / name)
    plan = loop.prepare(config_of(seed=3), epath.Path(run), one_device())
    assert record_run(epath.Path(run), plan.training) == []
    assert json.loads((run / "config.json").read_text())["seed"] == 3


LINES = [b'{"step": 0, "cdnv": null}\n', b'{"step": 1, "loss": 4.5}\n', b'{"step": 2, "loss": 4.25}\n']


@pytest.mark.parametrize(
    ("written", "kept", "lost"),
    [
        ([*LINES, b'{"step": 3, "loss": 4.0}\n'], LINES, []),
        ([*LINES, b'{"step": 2, "lo'], LINES, []),
        ([*LINES, b"\x00\xff\x00\xfe"], LINES, []),
        ([LINES[0], b'{"step": 1, "loss": 4\x80}\n', b"[]\n", LINES[2]], [LINES[0], LINES[2]], [1]),
        ([LINES[0], b'{"step": "1"}\n'], LINES[:1], [1, 2]),
        ([], [], [1, 2]),
    ],
)
def test_metrics_keep_their_whole_lines_and_lost_ones_are_named(written, kept, lost, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(written))
    writer = MetricWriter(epath.Path(tmp_path), 2, logged=[1, 2])
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(kept)
    assert writer.lost == lost


def test_without_its_checkpoint_a_damaged_measurement_is_named_and_the_report_written(run, capsys):
    (run / "measurements" / "step_00000001.json").write_text("{")
    shutil.rmtree(run / "checkpoints" / "1")
    shutil.rmtree(run / "report")
    again(run)
    assert (
        "step 1: collapse is missing and cannot be measured again: no checkpoint of step 1" in capsys.readouterr().out
    )
    assert (run / "measurements" / "damaged_step_00000001.json").read_text() == "{"


class Failing(Measurement):
    """Cannot be measured at step 1."""

    def start(self, subject):
        return lambda state, step: {"reciprocal": np.float32(1 / (step - 1)), "whole": step}


@pytest.mark.slow
def test_a_measurement_that_fails_ends_no_run_and_one_without_collapse_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(measurements.MEASUREMENTS, "failing", Failing)
    config = config_of().unlock()
    config.measure = {"failing": {}}
    assert loop.train_and_evaluate(config, tmp_path, one_device()) is None
    output = capsys.readouterr().out
    assert "step 1: failing failed and is left out: ZeroDivisionError" in output
    assert "No report: config.measure lists no collapse" in output
    measured = [line for line in metrics(tmp_path) if "reciprocal" in line]
    assert measured == [{"step": 0, "reciprocal": -1.0, "whole": 0}, {"step": 2, "reciprocal": 1.0, "whole": 2}]


@pytest.mark.parametrize("value", [0.0, np.inf])
def test_features_without_a_number_are_recorded_as_missing_and_make_a_report(value, tmp_path, monkeypatch):
    training, said = build(config_of()), []
    graphdef, state = training.abstract(one_device())
    subject = Subject(training, graphdef, one_device(), epath.Path(tmp_path), said.append)
    features = np.full((len(subject.held_out[0]), 5), value, np.float32)
    monkeypatch.setitem(subject.__dict__, "_embed", lambda *_: features)
    measure = Collapse(shots=(1, 5), repeats=2, normalize=True).start(subject)
    numbers, _ = (measure(state, step) for step in (1, 2))
    assert {"cdnv_color", "directional_cdnv_color", "few_shot_error_color_1"} <= numbers.keys()
    assert np.isnan(list(numbers.values())).all()
    assert "step 1: collapse could not be measured and is recorded as missing" in said[0]
    measured = record.load(tmp_path / "measurements" / "step_00000001.json")
    assert (measured.step, measured.samples) == (1, len(features))
    assert measured.tasks["color"].shots.tolist() == [1, 5]
    with style.theme():
        assert over_time.collapse(load(tmp_path))


@pytest.mark.parametrize(
    ("processes", "error"),
    [(1, OSError("No space left on device")), (2, ValueError("Gloo AllGather failed: Connection reset by peer"))],
)
def test_a_full_disk_and_a_lost_process_are_not_taken_for_a_measurement(processes, error, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    training = build(config_of())
    graphdef, state = training.abstract(one_device())
    subject = Subject(training, graphdef, one_device(), epath.Path(tmp_path))
    monkeypatch.setitem(subject.__dict__, "_embed", fail)
    measure = Collapse(shots=(1,), repeats=1).start(subject)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    with pytest.raises(type(error), match=str(error)):
        measure(state, 1)
    assert not (tmp_path / "measurements").exists()


@pytest.mark.parametrize("broken", ["write_report", "summary"])
def test_a_page_or_a_table_that_fails_ends_no_run(broken, run, monkeypatch, capsys):
    def fail(*_):
        raise TypeError("nan")

    monkeypatch.setattr(*((loop, broken) if broken == "write_report" else (record.Record, broken)), fail)
    shutil.rmtree(run / "report")
    assert again(run).step == 2
    assert "not everything measured could be shown (TypeError: nan)" in capsys.readouterr().out
    assert (run / "report").exists() == (broken == "summary")


def test_numbers_that_are_not_finite_leave_the_log_valid(tmp_path):
    writer = MetricWriter(epath.Path(tmp_path), 0)
    writer.write(1, {"loss": 1.5, "share": float("nan"), "cdnv": jax.numpy.inf})
    writer.flush()
    writer.close()
    assert metrics(tmp_path) == [{"step": 1, "loss": 1.5, "share": None, "cdnv": None}]
