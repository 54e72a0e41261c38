"""The report as files: what is written, from which sources, how it behaves with what real files and people do."""

import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from dnc.report import baguette, headline, summary
from dnc.report.html import write_report
from dnc.report.page import number
from tests.report import synthetic

NASTY = "<script>alert('x')</script>"
MATHTEXT = "$x^2_{i}$ 50% a_b \\frac"
DECIDE = ("shots", "labels", "hard")  # the sections that come first
LONG = "a class name that goes on and on " * 4


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    workdir = synthetic.workdir(tmp_path_factory.mktemp("run") / "simclr")
    return write_report(workdir, workdir / "report")


def one(path, classes=("cat", "dog", "fox")):
    return synthetic.save(path, synthetic.analysis({"animal": classes}))


def report_of(record, folder):
    return write_report(synthetic.save(folder / "a.json", record), folder / "report")


def everything_is_well_formed(index):
    page = index.read_text()
    for figure in (index.parent / "figures").glob("*.svg"):
        ElementTree.fromstring(figure.read_text())
    ids = re.findall(r'<svg[^>]*>|\bid="([^"]*)"', page)
    named = [name for name in ids if name]
    assert len(named) == len(set(named)), "ids repeat"
    assert page.count("<script") == 1
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page asks for another file"
    assert "NaN" not in page
    assert ">nan<" not in page
    return page


def test_a_run_has_every_section_figure_and_number(report):
    page = everything_is_well_formed(report)
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections == [*DECIDE, "collapse", "cosines", "variance", "pairs", "spectrum", "data", "details", "baguette"]
    stems = {path.stem for path in (report.parent / "figures").glob("*.svg")}
    assert stems == {path.stem for path in (report.parent / "figures").glob("*.png")}
    assert len(stems) == 2 + 2 + 8 + 6 + 4 + 4 + 1 + 1 + 1
    assert page.count('role="img" aria-label="') == len(stems)
    assert 'role="img" aria-label=""' not in page
    assert "0 of " in page
    assert report.stat().st_size < 2_000_000


def test_the_headline_states_the_measured_facts(report):
    title = re.search(r"<h1>(.*?)</h1>", report.read_text())
    records = json.loads((report.parent / "numbers.json").read_text())["records"]
    means = {
        (row["task"], row["step"]): row["value"]
        for row in records
        if row["quantity"] == "directional_cdnv" and row["name"] == "mean"
    }
    falls = [means[task, 0] / means[task, 1500] for task in synthetic.TASKS]
    assert title is not None
    assert "Over 47 epochs within-class variance, relative to the distance between classes, fell" in title.group(1)
    assert f"in all 4 tasks: {min(falls):.0f}× to {max(falls):.0f}× against " in title.group(1)


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ([(30, 2)], "fell 30× along the decision axis, and fell 2× in total"),
        ([(30, 0.5)], "fell 30× along the decision axis, and rose 2× in total"),
        ([(25, 3), (70, 40)], "in all 2 tasks: 25× to 70× against 3× to 40×"),
        ([(25, 3), (5, 10)], "in 1 of 2 tasks (not in task 1): 5× to 25× against 3× to 10×"),
        ([(2, 3), (5, 5)], "in none of 2 tasks: 2× to 5× against 3× to 5×"),
        ([(25, 0.5), (70, 4)], "in all 2 tasks: fell 25× to 70× against a 2× rise to a 4× fall"),
        ([(0.5, 0.25), (9, 0.5)], "in 1 of 2 tasks (not in task 0): a 2× rise to a 9× fall against rose 2× to 4×"),
        ([(0.5, 0.25), (1 / 3, 1 / 9)], "in none of 2 tasks: rose 2× to 3× against rose 4× to 9×"),
        ([(math.inf, 2)], "neither directional CDNV nor CDNV has a value to compare"),
        ([(1.0001, 0.9999)], "stayed along the decision axis, and stayed in total"),
        ([(1e7, 2)], "fell 10,000,000× along the decision axis, and fell 2× in total"),
        ([(math.nan, 2), (8, 2)], "fell 8× along the decision axis, and fell 2× in total (task 0 cannot be compared)"),
        ([(math.nan, 2)], "neither directional CDNV nor CDNV has a value to compare"),
    ],
)
def test_the_headline_says_in_how_many_tasks_the_claim_holds(factors, sentence):
    rows = [
        summary.TaskRow(
            f"task {i}", 2, float(along), 1.0, float(total), 1.0, ((10, 0.9), (100, 0.9)), (math.nan, math.nan), {}
        )
        for i, (along, total) in enumerate(factors)
    ]
    assert headline._fall(rows).endswith(sentence)


@pytest.mark.parametrize(("first", "last", "factor"), [(2.0, 1.0, 2), (1.0, 0.0, math.inf), (0.0, 1.0, math.nan)])
def test_what_falls_to_nothing_has_fallen(first, last, factor):
    np.testing.assert_equal(summary._ratio(first, last), factor)
    np.testing.assert_equal(summary._ratio(math.inf, 1.0), math.nan)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.997, "99.7%"),
        (0.99999, "99.9%"),
        (1.0, "100%"),
        (0.994, "99%"),
        (0.0004, "0.1%"),
        (0.0, "0%"),
    ],
)
def test_only_all_is_a_hundred_percent(share, text):
    assert headline._percent(share) == text


def test_every_kind_of_report_speaks_of_what_it_shows(report, tmp_path):
    single = synthetic.analysis({"color": ("red", "blue"), "shape": ("disk", "box", "star")})
    single["axes"]["color|shape"]["bound"] = {"median": None}
    run, one = report.read_text(), report_of(single, tmp_path).read_text()
    for page in (run, one):
        last = page[page.rindex("<section") :]
        assert "These clouds are synthetic; they are not the data of this report." in last
        assert "<dt>repeats</dt><dd>20 draws of the shots</dd>" in page
        assert "<dt>shots per class</dt><dd>1, 5, 10, 20, 50, 100</dd>" in page
        assert "<dt>seed</dt><dd>0</dd>" in page
        assert re.search(r"<dt>measured</dt><dd>\d{4}-\d\d-\d\d \d\d:\d\d UTC</dd>", page)
        assert re.search(r"RankMe</th>(<td>8.00</td>)?<td class=\"strong\">48.0", page)
    of_training = ("band reaches from", "dashed, with W", "the same at the first step", "spread evenly over log time")
    assert all(text in run and text not in one for text in of_training)
    reason = "Bound n/a: it holds for labels that are balanced and independent"
    assert reason in one
    assert reason not in run
    assert "interval for the population" not in run
    assert ">measured<" not in "".join(path.read_text() for path in (tmp_path / "report/figures").glob("variance*.svg"))


def test_the_reason_for_a_missing_number_is_told(tmp_path):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    record["tasks"]["animal"] |= {"error": None, "summary": {"cdnv": None, "directional_cdnv": 0.5}}
    page = report_of(record, tmp_path).read_text()
    assert "animal: few-shot accuracy was not measured." in page
    assert "animal: CDNV has no finite mean" in page


def test_folders_above_files_stay_private(tmp_path):
    workdir = synthetic.workdir(tmp_path / "w", {"digit": ("0", "1")}, (0,))
    private = {"data": {"train": "/home/someone/photos/train", "sets": ["~/x/y", "a/b"]}, "note": "a\u202eb"}
    synthetic.save(workdir / "config.json", private)
    page = write_report(workdir, workdir / "report").read_text()
    assert "someone" not in page
    for text in ("…/train", "…/y", "a/b", "a\ufffdb"):
        assert f"&#34;{text}&#34;" in page


def test_numbers_are_tidy_and_the_same_in_both_files(report):
    table = pd.read_csv(report.parent / "numbers.csv")
    records = json.loads((report.parent / "numbers.json").read_text())["records"]
    assert list(table.columns) == ["step", "epoch", "task", "quantity", "name", "shots", "value"]
    assert len(table) == len(records)
    assert not table.duplicated(["step", "task", "quantity", "name", "shots"]).any()
    np.testing.assert_array_equal(table["value"], [math.nan if r["value"] is None else r["value"] for r in records])


def test_the_same_files_give_the_same_bytes(tmp_path):
    source = one(tmp_path / "a.json")
    first = write_report(source, tmp_path / "one")
    baguette.pictures.cache_clear()
    second = write_report(source, tmp_path / "two")
    files = sorted(path.relative_to(first.parent) for path in first.parent.rglob("*") if path.is_file())
    assert len(files) > 8
    for file in files:
        assert (first.parent / file).read_bytes() == (second.parent / file).read_bytes(), file


def test_a_single_analysis_has_no_section_that_needs_time(tmp_path):
    page = everything_is_well_formed(write_report(one(tmp_path / "cifar.json"), tmp_path / "report"))
    assert re.findall(r'<section id="(\w+)"', page) == [*DECIDE, "variance", "pairs", "spectrum", "details", "baguette"]
    assert "<title>cifar:" in page
    assert "Directional CDNV is" in page


def test_analysis_files_of_one_run_in_any_order_are_a_run(tmp_path):
    tasks = {"digit": ("0", "1")}
    paths = [synthetic.save(tmp_path / f"{step}.json", synthetic.analysis(tasks, step)) for step in (100, 0, 10)]
    page = everything_is_well_formed(write_report(paths, tmp_path / "report"))
    assert 'id="collapse"' in page
    assert "Over 100 steps" in page


def test_optional_files_may_be_missing_and_a_torn_log_line_is_skipped(tmp_path):
    workdir = synthetic.workdir(tmp_path / "w", {"digit": ("0", "1", "2")}, (0, 8), name=None)
    for file in ("config.json", "environment.json", "images/contact_sheet.png"):
        (workdir / file).unlink()
    with (workdir / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9, "lo')
    page = everything_is_well_formed(write_report(workdir, workdir / "report"))
    assert "Configuration" not in page
    assert "<img" not in page
    assert "<title>w:" in page
    (workdir / "metrics.jsonl").unlink()
    assert 'id="data"' not in write_report(workdir, workdir / "report").read_text()


def test_a_run_that_has_only_begun_is_a_single_analysis_with_a_log(tmp_path):
    workdir = synthetic.workdir(tmp_path / "w", {"digit": ("0", "1")}, (0,))
    page = everything_is_well_formed(write_report(workdir, workdir / "report"))
    assert re.findall(r'<section id="(\w+)"', page) == [
        *DECIDE,
        "variance",
        "pairs",
        "spectrum",
        "data",
        "details",
        "baguette",
    ]
    assert "two-class subtasks" not in page, "two classes have one two-class subtask: themselves"


def test_nulls_are_tolerated_and_shown_as_not_available(tmp_path):
    def hollow(value):
        if isinstance(value, dict):
            kept = ("classes", "shots", "curve_shots", "schema", "row", "label", "suggested", "doubtful")
            kept = (*kept, "rank", "name")
            return {key: item if key in kept else hollow(item) for key, item in value.items()}
        return [hollow(item) for item in value] if isinstance(value, list) else None

    record = synthetic.analysis({"animal": ("cat", "dog"), "hat": ("red", "blue", "none")}, 0)
    record = synthetic.with_views(record, "hat", ids=True)
    page = everything_is_well_formed(report_of(hollow(record), tmp_path))
    assert page.count("n/a") > 10


@pytest.mark.parametrize("part", ["error", "certificates", "decomposition", "summary", "shots"])
def test_parts_of_a_task_may_be_absent(tmp_path, part):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    of_shots = ("shots", "error", "certificates", "predicted", "guarantee")
    for absent in of_shots if part == "shots" else (part,):
        del record["tasks"]["animal"][absent]
    everything_is_well_formed(report_of(record, tmp_path))


def test_zero_error_and_infinite_cdnv_are_drawn(tmp_path):
    record = synthetic.analysis({"easy": ("a", "b", "c")})
    task = record["tasks"]["easy"]
    task["error"] |= {"mean": [0.0] * 6, "std": [0.0] * 6, "two_class": [0.1, 0.01, 0, 0, 0, 0]}
    task["cdnv"][0][1] = task["directional_cdnv"][0][1] = math.inf
    everything_is_well_formed(report_of(record, tmp_path))


def test_an_error_above_its_certificate_is_reported(tmp_path):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    record["tasks"]["animal"]["error"]["two_class"][5] = 0.9
    page = report_of(record, tmp_path).read_text()
    assert re.search(r'<strong class="alarm">[1-9]', page)
    assert "exact_cantelli, m = 100: error 0.9 &gt;" in page


def test_a_certificate_of_no_value_fails_the_check(tmp_path):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    cantelli = record["tasks"]["animal"]["certificates"]["exact_cantelli"]
    cantelli["bound"] = [None for _ in cantelli["bound"]]
    assert re.search(
        rf"{len(cantelli['bound'])} of \d+</strong> measured errors lie above", report_of(record, tmp_path).read_text()
    )


def test_warnings_stand_under_the_numbers(tmp_path):
    record = synthetic.analysis({"animal": ("cat", "dog", "fox")})
    task = record["tasks"]["animal"]
    task |= {"missing": {"exact_conditional": "<too large>"}, "overlap": "cauchy_schwarz"}
    task["corrected"] = {"cdnv": 2 * task["summary"]["cdnv"], "undecided": 0.5}
    page = report_of(record, tmp_path).read_text()
    assert "</strong>: exact_conditional is left out: &lt;too large&gt;." in page
    assert "</strong>: certificates use an upper bound of tr(Sigma_i Sigma_j): cauchy_schwarz." in page
    assert "cannot tell the class means of 50% of the pairs apart." in page


def test_names_are_text_everywhere(tmp_path):
    classes = (NASTY, MATHTEXT, LONG, "猫 🐈", "_hidden", 'quote" onload="x', "\ud800\x00bell\x07\nline")
    tasks = {NASTY: classes, MATHTEXT: classes[:3], '"><img src=x>': ("$", "$$")}
    records = {tmp_path / f"{step}.json": synthetic.analysis(tasks, step, None, NASTY) for step in (0, 7)}
    page = everything_is_well_formed(
        write_report([synthetic.save(*item) for item in records.items()], tmp_path / "report")
    )
    assert "<img" not in page
    assert "&lt;script&gt;alert" in page
    assert "onload=&#34;x" in page
    drawn = "".join(path.read_text() for path in (tmp_path / "report" / "figures").glob("pairs_*.svg"))
    assert "$x^2_{i}$ 5…" in drawn
    assert "_hidden" in drawn
    for file in (tmp_path / "report" / "figures").iterdir():
        assert re.fullmatch(r"[A-Za-z0-9_]+\.(svg|png)", file.name)


def test_a_hundred_classes(tmp_path):
    index = write_report(one(tmp_path / "a.json", tuple(f"class {i}" for i in range(100))), tmp_path / "report")
    page = everything_is_well_formed(index)
    assert page.count('class="bar"') == 240
    assert index.stat().st_size < 1_000_000


def test_a_failure_leaves_the_old_report_and_other_files(tmp_path):
    index = write_report(one(tmp_path / "a.json"), tmp_path / "report")
    before = index.read_bytes()
    with pytest.raises(ValueError, match="schema"):
        write_report(synthetic.save(tmp_path / "b.json", {"schema": "other"}), tmp_path / "report")
    with pytest.raises(FileExistsError, match="new or empty"):
        write_report(tmp_path / "a.json", tmp_path)
    assert index.read_bytes() == before
    assert (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "schema is None"), ('{"schema": "dnc.analysis/1"}', "KeyError 'tasks'")],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"broken.json.*{message}"):
        write_report(path, tmp_path / "report")


def test_nothing_to_read_and_files_without_distinct_steps_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no analysis file"):
        write_report(tmp_path / "no.json", tmp_path / "report")
    with pytest.raises(FileNotFoundError, match="measurements"):
        write_report(tmp_path, tmp_path / "report")
    with pytest.raises(ValueError, match="one distinct step each"):
        write_report([one(tmp_path / "a.json"), one(tmp_path / "b.json")], tmp_path / "report")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (math.nan, "n/a"), (math.inf, "n/a"), (0.0, "0"), (0.05, "0.050"), (-1.5, "−1.5"), (2.0, "2.0"),
     (12345.6, "12,346"), (3.14e-7, "3.1·10⁻⁷")],
)  # fmt: skip
def test_numbers_are_written_for_people(value, text):
    assert number(value, 2) == text
