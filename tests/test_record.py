"""Records and their JSON: what is written is what is read."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

import dnc
from dnc import record
from dnc.record import AxesRecord, Record, plain
from tests.report import synthetic
from tests.samples import clusters, factorial


@pytest.fixture(scope="module")
def measured():
    features, labels = factorial(levels=(3, 3, 3), renders=6)
    return dnc.analyze(features, labels, shots=[1, 2], repeats=2, replicates=2, name="a|b", step=7, epoch=0.5).record


def test_a_file_read_again_is_the_same_file(measured, tmp_path):
    measured.save(tmp_path / "a.json")
    again = record.load(tmp_path / "a.json")
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    pairs = [(f"factor{i}", f"factor{j}") for i, j in ((0, 1), (0, 2), (1, 2))]
    assert list(again.axes) == list(measured.axes) == pairs
    assert again.energy == measured.energy
    assert list(again.energy["factor0"]) == [1, 2, 4, 8, 12]
    for name, task in measured.tasks.items():
        np.testing.assert_array_equal(again.tasks[name].directional_cdnv, task.directional_cdnv)
        np.testing.assert_array_equal(again.tasks[name].counts, task.counts)


def test_matrices_of_many_classes_lie_beside_the_file(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MOST_IN_JSON", 2)
    path = tmp_path / "a[1].json"
    measured.save(path)
    (beside,) = tmp_path.glob("*.npz")
    assert set(json.loads(path.read_text())["tasks"]["factor0"]["cdnv"]) == {"array"}
    again = record.load(path)
    assert again.to_json() == measured.to_json()
    again.save(tmp_path / "a[1].json")  # the same content: the same file
    assert [*tmp_path.glob("*.npz")] == [beside]
    moved = dataclasses.replace(measured.tasks["factor0"], cdnv=2 * measured.tasks["factor0"].cdnv)
    dataclasses.replace(measured, tasks={"factor0": moved}, axes={}).save(path)
    (other,) = tmp_path.glob("*.npz")
    assert other.name != beside.name
    np.testing.assert_allclose(record.load(path).tasks["factor0"].cdnv, moved.cdnv, rtol=1e-6)
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="damaged or of another analysis: copy both files again"):
        record.load(path)
    other.unlink()
    with pytest.raises(ValueError, match="not beside it: copy both files"):
        record.load(path)


def test_matrices_are_read_from_beside_the_file_alone(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MOST_IN_JSON", 2)
    measured.save(tmp_path / "a.json")
    text = json.loads((tmp_path / "a.json").read_text())
    for name in ("../a.npz", "/etc/passwd", 3):
        (tmp_path / "b.json").write_text(json.dumps(text | {"arrays": name}))
        with pytest.raises(ValueError, match="not the name of a file beside it"):
            record.load(tmp_path / "b.json")


def test_tables_of_the_file_are_those_of_the_analysis(measured):
    again = Record.from_json(json.loads(json.dumps(measured.to_json())))
    assert again.summary() == measured.summary()
    assert again.to_pandas().equals(measured.to_pandas())


def test_what_was_left_out_is_told(measured):
    assert "left out" not in measured.summary()
    of_fewer = Record.from_json(dataclasses.replace(measured, left_out=3).to_json())
    assert of_fewer.summary().startswith("note: 3 images could not be decoded and were left out\n")


def test_what_json_cannot_hold_becomes_null():
    assert plain({1: [np.float32(math.nan), math.inf], "x": np.array([[0.5, -math.inf]])}) == {
        "1": [None, None],
        "x": [[0.5, None]],
    }
    assert plain(np.arange(3)) == [0, 1, 2]


def test_infinite_values_are_written_and_told():
    features, labels = clusters(n=40, k=2, d=3, balanced=True)
    features[labels == 1] = features[labels == 0]
    result = dnc.analyze(features, labels, shots=[1], repeats=1)
    assert "CDNV inf" in result.summary()
    assert result.to_dict()["tasks"]["labels"]["cdnv"][0][1] is None


def test_names_may_hold_the_bar_that_joins_them():
    names = {"a|b": ("0", "1"), "c": ("x", "y"), "a": ("x", "y"), "b|c": ("x", "y"), "a\\": ("x", "y")}
    assert list(Record.from_json(synthetic.analysis(dict(list(names.items())[:2]))).axes) == [("a|b", "c")]
    pairs = list(itertools.combinations(names, 2))  # "a|b|c" is of two of them
    axes = {pair: AxesRecord({"median": float(i)}, {}, 0) for i, pair in enumerate(pairs)}
    measured = dataclasses.replace(Record.from_json(synthetic.analysis(names) | {"axes": {}}), axes=axes)
    assert Record.from_json(measured.to_json()).axes == axes


def test_every_name_is_fit_to_be_shown(measured):
    tasks = {f"{name}\x1b[31m": dataclasses.replace(task, classes=("a\x00", "a\u202e", "a\ufffd")[: task.num_classes])
             for name, task in measured.tasks.items()}  # fmt: skip
    axes = {(f"{a}\x1b[31m", f"{b}\x1b[31m"): value for (a, b), value in measured.axes.items()}
    interference = {f"{a}\x1b[31m": {f"{b}\x1b[31m": 0.5 for b in row} for a, row in measured.interference.items()}
    energy = {f"{task}\x1b[31m": row for task, row in measured.energy.items()}
    nasty = dataclasses.replace(measured, tasks=tasks, axes=axes, interference=interference, energy=energy, name="x\ny")
    shown = nasty.shown()
    assert shown.name == "x y"
    assert list(shown.tasks) == [f"factor{i}\ufffd[31m" for i in range(3)]
    assert list(shown.axes) == [(f"factor{i}\ufffd[31m", f"factor{j}\ufffd[31m") for i, j in ((0, 1), (0, 2), (1, 2))]
    assert set(shown.interference) == set(shown.energy) == set(shown.tasks)
    assert "\x1b" not in nasty.summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "dnc.analysis/0"}, "schema is 'dnc.analysis/0', not 'dnc.analysis/1'"),
        ({"tasks": {}}, "it holds no task"),
        ({"axes": {"x|y": {}}}, "'x|y' are not of two of its tasks"),
    ],
)
def test_a_file_that_does_not_follow_the_schema_is_named(change, message, tmp_path):
    path = synthetic.save(tmp_path / "other.json", synthetic.analysis({"animal": ("cat", "dog")}) | change)
    with pytest.raises(ValueError, match=r"other\.json") as caught:
        record.load(path)
    assert message in str(caught.value)


def test_views_are_read_as_they_were_written_and_files_without_them_load():
    plain_record = synthetic.analysis({"animal": ("cat", "dog", "fox\x1b")})
    assert Record.from_json(plain_record).tasks["animal"].views == ()
    read = Record.from_json(synthetic.with_views(plain_record, "animal", ids=True))
    again = Record.from_json(json.loads(json.dumps(read.to_json())))
    assert again.to_json() == read.to_json()
    views = again.tasks["animal"].views
    assert [view.rank for view in views] == ["hardest", "median", "easiest"]
    assert views[0].first.points.shape == (30, 2)
    shown = again.shown().tasks["animal"]
    assert shown.views[1].second.name == shown.classes[2] == "fox\ufffd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": "../../etc"}, "rank is '../../etc'"),
        ({"first": {"name": "cat", "points": [[0, 1]], "rows": [1, 2]}}, "expected numbers of shape"),
        ({"first": {"name": "cat", "points": [[0, 1, 2]], "rows": [1]}}, "expected numbers of shape"),
        ({"first": {"name": "cat", "points": [[0, 1]], "rows": [1], "ids": []}}, "1 points have 0 ids"),
        ({"second": {}}, "KeyError .name."),
    ],
)
def test_views_that_do_not_follow_the_schema_are_refused(change, message):
    broken = synthetic.with_views(synthetic.analysis({"animal": ("cat", "dog")}), "animal")
    broken["tasks"]["animal"]["views"][0] |= change
    with pytest.raises(ValueError, match=f"does not follow.*{message}"):
        Record.from_json(broken)
