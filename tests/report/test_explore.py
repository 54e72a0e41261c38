"""What a reader can do with the page, and what its policy lets nobody do; `test_browser` has what needs a browser."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import dnc
from dnc.record import Record
from dnc.report import over_time, page, pair_views, pairs, shots, style, tips
from dnc.report.html import write_report
from dnc.report.run import load, run_of
from tests import oracles
from tests.report import synthetic
from tests.samples import clusters

NASTY = '</script></title><img src=x onerror="alert(1)">'
TEMPLATES = Path(page.__file__).parent


class Elements(HTMLParser):
    """Every element's name and attributes, and the text of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_data(self, data):
        if self._inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self._inside = False

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def marks(picture):
    """(element, its title) of every mark, as a browser reads the SVG."""
    (group,) = [e for e in ElementTree.fromstring(picture.svg).iter() if e.get("class") == "tips"]
    return [(mark, mark[0].text) for mark in group]


def told(picture, start):
    """What the titles that start like this tell after the last colon."""
    return [title.rsplit(": ", 1)[1] for _, title in marks(picture) if title.startswith(start)]


def run_with(record):
    return run_of([Record.from_json(record)], "name", {})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page whose every name is an attack, with views."""
    folder = tmp_path_factory.mktemp("hostile")
    classes = (NASTY, f"{NASTY}2", 'x" onfocus="alert(2)')
    record = synthetic.analysis({NASTY: classes, "b": classes[:2]}, name=NASTY)
    synthetic.with_views(record, NASTY, ids=True)
    return write_report(synthetic.save(folder / "a.json", record), folder / "report").read_text()


def test_the_policy_allows_the_pages_own_script_and_nothing_else(hostile):
    elements = Elements(hostile)
    (policy,) = [meta["content"] for meta in elements.of("meta") if "http-equiv" in meta]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = elements.scripts
    assert rules["script-src"] == f"'{page.digest(script)}'"
    assert (rules["default-src"], rules["img-src"], rules["font-src"]) == ("'none'", "data:", "data:")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert script == (TEMPLATES / "page.js").read_text(encoding="utf-8")


def test_the_digest_is_that_of_the_standard():
    # printf 'alert(1)' | openssl dgst -sha256 -binary | base64
    assert page.digest("alert(1)") == "sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI="


def test_every_kind_of_page_has_the_policy_and_the_script():
    pages = [path for path in TEMPLATES.glob("*.html") if path.name not in ("base.html", "macros.html")]
    assert len(pages) == 4
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert text.startswith('{% extends "base.html" %}')
        assert not re.search(r"<script|\son\w+=", text)


def test_names_are_text_in_titles_tips_and_tables(hostile):
    elements = Elements(hostile)
    assert len(elements.of("script")) == 1
    assert elements.of("img") == []
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert {"title", "aria-label"} <= {name for _, attributes in elements.found for name in attributes}
    escaped = NASTY.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert f"<title>{escaped} → {escaped}2: directional CDNV" in hostile
    assert f"photos/{escaped}_" in hostile


def test_every_cell_of_a_heatmap_tells_its_pair():
    run = run_with(synthetic.analysis({"animal": ("cat", "dog", "fox", "owl")}))
    task = run.last.tasks["animal"]
    found = {mark.get("data-pair"): (mark, title) for mark, title in marks(pairs.heatmaps(run)["animal"])}
    assert len(found) == 12
    for key, (_, title) in found.items():
        i, j = map(int, key.split())
        values = f"directional CDNV {task.directional_cdnv[i, j]:.3g}, CDNV {task.cdnv[i, j]:.3g}"
        assert title == f"{task.classes[i]} → {task.classes[j]}: {values}"
    at = {key: [float(mark.get(name)) for name in ("x", "y", "width", "height")] for key, (mark, _) in found.items()}
    x, y, width, height = at["1 0"]
    np.testing.assert_allclose(at["1 2"], [x + 2 * width, y, width, height], atol=0.2)
    np.testing.assert_allclose(at["3 0"], [x, y + 2 * height, width, height], atol=0.2)


def test_of_many_classes_the_hardest_cells_tell_their_pair():
    run = run_with(synthetic.analysis({"species": tuple(f"s{c}" for c in range(30))}))
    values = run.last.tasks["species"].directional_cdnv
    keys = [mark.get("data-pair") for mark, _ in marks(pairs.heatmaps(run)["species"])]
    assert len(keys) == 576
    assert keys[0] == "{} {}".format(*np.unravel_index(np.nanargmax(values), values.shape))


def test_points_of_error_curves_tell_the_measured_and_the_certified_error():
    run = run_with(synthetic.analysis({"animal": ("cat", "dog", "fox")}))
    task, picture = run.last.tasks["animal"], shots.shots(run)["animal"][0]
    error = task.error
    expected = [f"{mean:.3g} ± {std:.3g}" for mean, std in zip(error.mean, error.std, strict=True)]
    assert told(picture, "measured error, m =") == expected
    assert told(picture, "exact joint, m =") == [f"{b:.3g}" for b in task.certificates["exact_joint"].bound]
    assert told(picture, "95% guarantee, m =") == [f"{b:.3g}" for b in task.guarantee.upper[:-1]]


def test_points_of_a_run_tell_step_and_value(tmp_path):
    run = load(synthetic.workdir(tmp_path / "w", {"a": ("0", "1"), "b": ("0", "1", "2")}, (0, 1, 4)))
    with style.theme():
        collapse, cosines, variance, loss = (f(run) for f in (
            over_time.collapse, over_time.cosines, over_time.variance, over_time.loss))  # fmt: skip
    expected = [f"{value:.3g}" for value in run.series("a", "mean_directional_cdnv")]
    assert told(collapse[0], "a, epoch") == expected
    medians = [f"median {r.axes['a', 'b'].cosine['median']:.3g}" for r in run.records]
    assert [text.split(",")[0] for text in told(cosines[0], "|cos|, epoch")] == medians
    axis = run.last.tasks["a"].decomposition["axis"].mean()
    assert told(variance[0], "decision axis, epoch")[-1] == f"{axis:.3g}"
    assert len(told(loss[0], "running median of the loss")) > 0


def test_marks_lie_on_the_points_that_matplotlib_draws():
    run = run_with(synthetic.analysis({"animal": ("cat", "dog", "fox")}))
    picture = shots.shots(run)["animal"][0]
    drawn = [e for e in ElementTree.fromstring(picture.svg).iter() if e.tag.endswith("}use") and e.get("x")]
    dots = np.array([[float(e.get("x")), float(e.get("y"))] for e in drawn])
    own = [mark for mark, title in marks(picture) if title.startswith("measured error")]
    for mark in own:
        at = [float(mark.get("cx")), float(mark.get("cy"))]
        assert np.abs(dots - at).max(axis=1).min() < 0.1


def test_values_that_are_not_finite_have_no_mark_and_are_not_numbers():
    with style.theme():
        figure, axes = style.panel()
        tips.line(axes, np.array([1.0, 2.0]), np.array([np.nan, 1.0]), "x", "m =", np.array([1.0, np.inf]))
        found = marks(style.render(figure, "name", "alt"))
    assert [title for _, title in found] == ["x, m = 2: n/a"]


@pytest.mark.parametrize("ids", [False, True])
def test_every_sample_of_a_pair_is_drawn_and_named(ids):
    record = synthetic.with_views(synthetic.analysis({"animal": ("cat", "dog", "fox")}), "animal", ids)
    run = run_with(record)
    pictures = pair_views.pictures(run)["animal"]
    assert [picture.name for picture in pictures] == [
        f"views_animal_{rank}" for rank in ("hardest", "median", "easiest")
    ]
    side = record["tasks"]["animal"]["views"][0]["first"]
    sample = side["ids"][0] if ids else f"row {side['rows'][0]}"
    titles = [title for _, title in marks(pictures[0])]
    x, y = side["points"][0]
    assert f"cat, {sample}: {x:.2f} along u, {y:.2f} across" in titles
    assert sum("along u, " in title for title in titles) == 60
    counted = [re.findall(r"(\d+) of (\w+)", title) for title in titles if " to " in title]
    assert sum(int(n) for bins in counted for n, name in bins if name == "cat") == 30
    assert "30 of 300 samples of cat and 30 of 300 samples of dog" in pictures[0].alt
    assert "CDNV 1.50, directional CDNV 0.0200, error 12.5%" in pictures[0].alt


def test_a_page_shows_the_readers_own_pairs_or_else_the_drawn_ones(tmp_path):
    tasks, pages = {"animal": ("cat", "dog", "fox"), "hat": ("red", "blue")}, {}
    records = {
        "without": synthetic.analysis(tasks),
        "with": synthetic.with_views(synthetic.analysis(tasks), "hat"),
    }
    for name, record in records.items():
        path = synthetic.save(tmp_path / f"{name}.json", record)
        pages[name] = write_report(path, tmp_path / name).read_text()
    assert ('id="views"' in pages["without"], 'id="baguette"' in pages["without"]) == (False, True)
    assert ('id="views"' in pages["with"], 'id="baguette"' in pages["with"]) == (True, False)
    assert ">both classes</text>" in pages["with"]
    assert "At most 30 samples of a class are drawn" in pages["with"]


def test_sections_and_tasks_have_links(tmp_path):
    record = synthetic.with_views(synthetic.analysis({"a b": ("cat", "dog", "fox"), "a/b": ("1", "2")}), "a b")
    text = write_report(synthetic.save(tmp_path / "a.json", record), tmp_path / "report").read_text()
    elements = Elements(text)
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"][1:] for attributes in elements.of("a")]
    assert set(targets) <= set(ids)
    assert {attributes["id"] for attributes in elements.of("section")} <= set(targets)
    assert {"hard-a_b", "hard-a_b_2", "pairs-a_b", "pairs-a_b_2", "views-a_b"} <= set(targets)
    assert targets[0] == "content"
    assert elements.of("main")[0]["id"] == "content"


def test_the_views_of_an_analysis_are_those_of_a_slow_loop():
    features, labels = clusters(seed=3, n=1500, k=4, d=9, balanced=True)
    result = dnc.analyze(features, labels, shots=[1], repeats=1, guarantees=False)
    views = result.record.tasks["labels"].views
    directional = oracles.pair_geometry(features, labels)["directional_cdnv"]
    mean = (directional + directional.T) / 2
    ordered = sorted(zip(*np.triu_indices(4, 1), strict=True), key=lambda pair: -mean[pair])
    assert [view.rank for view in views] == ["hardest", "median", "easiest"]
    for view, pair in zip(views, (ordered[0], ordered[2], ordered[-1]), strict=True):
        assert (view.first.name, view.second.name) == tuple(str(c) for c in pair)
        np.testing.assert_allclose(view.directional_cdnv, mean[pair], rtol=1e-4)
        np.testing.assert_allclose(view.cdnv, oracles.pair_geometry(features, labels)["cdnv"][pair], rtol=1e-4)
        classes = [features[labels == c] for c in pair]
        planes = oracles.decision_plane(*classes)
        wrong = (planes[0][:, 0] > 0).mean() / 2 + (planes[1][:, 0] < 0).mean() / 2
        assert view.error == pytest.approx(wrong)
        for side, c, plane in zip((view.first, view.second), pair, planes, strict=True):
            assert (side.count, len(side.points), side.ids) == ((labels == c).sum(), 200, None)
            place = {row: index for index, row in enumerate(np.flatnonzero(labels == c))}
            chosen = plane[[place[row] for row in side.rows]]
            np.testing.assert_allclose(side.points, chosen, atol=1e-3)


def test_ids_stand_for_rows_and_runs_look_at_pairs_at_their_last_step_alone():
    features, labels = clusters(n=60, k=2, d=4, balanced=True)
    settings = dict(shots=[1], repeats=1, guarantees=False)
    ids = [f"{'folder/' * 9}{row}.png" for row in range(60)]
    (view,) = dnc.analyze(features, labels, ids=ids, **settings).record.tasks["labels"].views
    assert view.first.ids == tuple(f"…{ids[row][-39:]}" for row in view.first.rows)
    assert dnc.analyze(features, labels, queries=False, **settings).record.tasks["labels"].views == ()


def test_a_record_of_four_tasks_stays_small():
    features, labels = clusters(n=2400, k=6, d=8, balanced=True)
    task = dnc.analyze(features, labels, shots=[1], repeats=1, guarantees=False).record.tasks["labels"]
    assert len(str(task.to_json()["views"])) < 100_000
