"""Pieces of the report that can be wrong on their own: label placement, axes, the baguette's arithmetic."""

import csv
import io
import re

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnc.report import baguette, numbers, style
from dnc.report.over_time import collapse
from dnc.report.run import load
from dnc.report.shots import shots
from tests.report import browser, synthetic


@settings(deadline=None)
@given(st.lists(st.floats(-1, 2), min_size=1, max_size=9), st.floats(0.01, 0.3))
def test_spread_keeps_order_gaps_and_limits(positions, gap):
    placed = np.array(style.spread(positions, gap))
    assert (placed >= -1e-9).all()
    assert (placed <= 1 + 1e-9).all()
    order = np.argsort(positions, kind="stable")
    gaps = np.diff(placed[order])
    assert (gaps >= min(gap, 1 / max(1, len(positions) - 1)) - 1e-9).all()


def test_spread_leaves_what_is_apart_and_parts_what_is_not_evenly():
    np.testing.assert_allclose(style.spread([0.9, 0.1, 0.5], 0.1), [0.9, 0.1, 0.5])
    np.testing.assert_allclose(style.spread([0.5, 0.5], 0.2), [0.4, 0.6])


def test_both_scenes_have_one_cdnv_and_only_baguettes_are_told_apart():
    long, round_ = baguette.clouds(0.015), baguette.clouds(0.5)
    assert long.cdnv == pytest.approx(round_.cdnv, rel=1e-9)
    assert round_.directional_cdnv / long.directional_cdnv == pytest.approx(0.5 / 0.015, rel=1e-9)
    assert long.error == 0
    assert round_.error > 0.05


def test_the_baguettes_numbers_by_hand():
    first, second = np.array([[-1.0, 1.0], [-1.0, -1.0]]), np.array([[0.5, 0.0], [1.5, 0.0]])
    cdnv, directional, error = baguette.measure(first, second)
    assert cdnv == pytest.approx((1 + 0.25) / 4)
    assert directional == pytest.approx((0 + 0.25) / 2 / 4)
    assert error == 0


def test_the_time_axis_holds_zero_and_grows_like_a_logarithm(tmp_path):
    with style.theme():
        _, axes = style.panel()
        style.time_axis(axes, "epoch", np.array([0.0, 0.5, 1, 2, 4, 64]))
        at = axes.transData.transform([(x, 0.0) for x in (0.0, 0.5, 1, 2, 4, 8)])[:, 0]
        labels = [axes.xaxis.get_major_formatter()(tick) for tick in axes.xaxis.get_major_locator()()]
    steps = np.diff(at)
    assert (steps > 0).all()
    np.testing.assert_allclose(steps[1:], steps[1])
    assert labels[0] == "0"
    assert set(labels) <= {"0", "1/2", "1", "2", "4", "8", "16", "32", "64"}


def test_both_collapse_panels_share_their_scale(tmp_path):
    run = load(synthetic.workdir(tmp_path / "w", {"digit": ("0", "1")}, (0, 1, 4)))
    with style.theme():
        ticks = [set(re.findall(r">(2[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)<", p.svg)) for p in collapse(run)]
    assert ticks[0] == ticks[1]
    assert len(ticks[0]) >= 3


def test_images_that_were_trained_on_are_dashed(tmp_path):
    tasks = {"digit": ("0", "1")}
    workdir = synthetic.workdir(tmp_path / "w", tasks, (0, 1, 4))
    alone = load(workdir)
    (workdir / "measurements" / "train").mkdir()
    for step in (0, 4):  # step 1 was not measured
        record = synthetic.analysis(tasks, step, step / 4)
        record["tasks"]["digit"]["summary"]["cdnv"] = 2.0**step
        synthetic.save(workdir / "measurements" / "train" / f"step_{step:08d}.json", record)
    run = load(workdir)
    np.testing.assert_array_equal(run.trained_on_series("digit", "mean_cdnv"), [1.0, np.nan, 16.0])
    train = [row["value"] for row in numbers.records(run) if row["quantity"] == "train_cdnv"]
    assert train == [1.0, 16.0]
    with style.theme():
        before, after = (next(p for p in collapse(r) if p.name == "collapse_cdnv") for r in (alone, run))
    assert "trained on (dashed): digit 1 to 16" in after.alt
    assert "dashed" not in before.alt
    assert after.svg.count("stroke-dasharray") > before.svg.count("stroke-dasharray")


def test_a_bounds_interval_is_drawn_where_it_lies(tmp_path):
    record = synthetic.analysis({"color": synthetic.TASKS["color"]})
    task = record["tasks"]["color"]
    bound = np.array(task["certificates"]["exact_joint"]["bound"])
    task["intervals"] = {"exact_joint": {"low": list(0.8 * bound), "high": list(1.1 * bound)}}
    drawn = {}
    for name, intervals in (("with", task["intervals"]), ("without", {})):
        task["intervals"] = intervals
        synthetic.save(tmp_path / f"{name}.json", record)
        run = load(tmp_path / f"{name}.json")
        drawn[name] = shots(run)["color"][0].svg.count("<path")
    interval = load(tmp_path / "with.json").last.tasks["color"].intervals["exact_joint"]
    np.testing.assert_allclose(interval.low, 0.8 * bound)
    np.testing.assert_allclose(interval.high, 1.1 * bound)
    assert drawn["with"] == drawn["without"] + 1


def test_file_names_are_safe_and_distinct():
    names = style.file_names(["a b", "a_b", "../..", "A B", "", "猫"])
    assert len({name.lower() for name in names.values()}) == 6
    assert all(name.replace("_", "").isalnum() and name.isascii() for name in names.values())


def test_the_users_matplotlib_settings_neither_leak_in_nor_out():
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40.0}):
        with style.theme():
            assert not matplotlib.rcParams["text.usetex"]
            assert matplotlib.rcParams["font.size"] == 8.5
        assert matplotlib.rcParams["font.size"] == 40.0


def test_a_name_that_a_spreadsheet_would_compute_is_text_in_the_table():
    cells = ("=1+1", " +A1", "-2", "@x", "＝x", "plain", "a=b", None)
    rows = [dict.fromkeys(numbers.COLUMNS) | {"task": cell, "value": -1.5} for cell in cells]
    table = list(csv.DictReader(io.StringIO(numbers.to_csv(rows))))
    assert [row["task"] for row in table] == ["'=1+1", "' +A1", "'-2", "'@x", "'＝x", "plain", "a=b", ""]
    assert {row["value"] for row in table} == {"-1.5"}


def test_what_was_not_tested_for_want_of_a_browser_is_said():
    assert browser.untested(["needs dnc[tpu]"]) is None
    message = browser.untested(["needs dnc[tpu]", f"Skipped: {browser.MISSING}", f"Skipped: {browser.MISSING}"])
    assert message is not None
    assert message.startswith("2 tests of the report's page in a browser did not run")
    assert "apt-get install chromium" in message
