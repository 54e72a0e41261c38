"""The page in a real browser: nothing complains, everything loads and fits; it sorts, filters, tells, and prints."""

import json
from pathlib import Path

import pytest

from dnc.report import page as report_page
from dnc.report.html import write_report
from tests.report import browser, synthetic

pytestmark = pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.MISSING)

LONG = "an_unbroken_class_name_" * 6


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A whole run, and a single analysis with names that try to break the layout."""
    folder = tmp_path_factory.mktemp("browser")
    workdir = synthetic.workdir(folder / "run", steps=(0, 10, 100))
    last = workdir / "measurements" / "step_00000100.json"
    synthetic.save(last, synthetic.with_views(json.loads(last.read_text()), "shape", ids=True))
    hard = synthetic.analysis({LONG: (LONG, "<script>throw 1</script>", "b"), "many": [f"c{i}" for i in range(40)]})
    return {
        "run": write_report(workdir, workdir / "report"),
        "hard": write_report(synthetic.save(folder / "hard.json", hard | {"name": LONG}), folder / "hard"),
    }


@pytest.fixture(scope="module")
def page():
    with browser.chromium() as tab:
        yield tab


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["run", "hard"])
def test_the_page_loads_fits_and_is_silent(pages, page, name, width):
    page.complaints.clear()
    page.open(pages[name].resolve().as_uri(), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == (1 if name == "run" else 0)
    figures = "[...document.querySelectorAll('svg.figure')].map(f => f.getBoundingClientRect().width)"
    assert all(200 < size <= width for size in page.evaluate(figures))
    assert page.evaluate("document.fonts.check(\"8px 'DejaVu Sans'\") && document.fonts.size") == 1
    assert page.complaints == []


@pytest.mark.parametrize("width", [1280, 1440])
def test_no_table_is_cut_on_a_desktop(pages, page, width):
    page.open(pages["run"].resolve().as_uri(), width)
    assert page.evaluate("document.querySelectorAll('.wide th').length") > 20
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(t => t.scrollWidth <= t.clientWidth)")


def test_text_in_figures_is_legible_on_a_phone(pages, page):
    page.open(pages["run"].resolve().as_uri(), 390)
    heights = page.evaluate(
        "[...document.querySelectorAll('svg.figure text')].map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) > 300
    assert min(heights) > 8


def test_print_opens_the_details(pages, page, tmp_path):
    page.open(pages["run"].resolve().as_uri(), 1200)
    page.call("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('details pre')].every(p => p.getBoundingClientRect().height > 20)"
    assert page.evaluate(visible)
    page.call("Emulation.setEmulatedMedia", media="")
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_the_check_for_complaints_hears_them(page, tmp_path):
    (tmp_path / "bad.html").write_text('<img src="missing.png"><script>console.error("loud"); nothing()</script>')
    page.complaints.clear()
    page.open((tmp_path / "bad.html").as_uri(), 390)
    text = " ".join(page.complaints)
    assert "loud" in text
    assert "nothing is not defined" in text
    assert "loadingFailed" in text


TABLE = "document.querySelector('#pairs-shape ~ .scroll table')"
SHOWN = f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden).map(row => row.dataset.pair)"
HEADING = f"[...{TABLE}.querySelectorAll('th')].find(th => th.textContent === 'Wij')"


def test_the_keyboard_skips_to_the_content_and_follows_links(pages, page):
    page.open(pages["run"].resolve().as_uri(), 1280)
    page.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter", "\r")
    assert page.evaluate("[location.hash, document.activeElement.id]") == ["#content", "content"]
    seen = []
    for _ in range(60):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen[-1]
    assert {"#shots", "#labels", "#hard", "BUTTON"} <= set(seen)


def test_a_table_sorts_by_keyboard_up_down_and_back(pages, page):
    page.open(pages["run"].resolve().as_uri(), 1280)
    first = page.evaluate(SHOWN)
    page.evaluate(f"{HEADING}.querySelector('button').focus()")
    orders, sort = [], []
    for _ in range(3):
        page.press("Enter", "\r")
        orders.append(page.evaluate(SHOWN))
        sort.append(page.evaluate(f"{HEADING}.getAttribute('aria-sort')"))
    assert sort == ["ascending", "descending", None]
    assert orders[2] == first
    assert orders[1] == first, "the hardest pairs come first as the page is written"
    assert sorted(orders[0]) == sorted(first)
    assert orders[0][0] == first[-1]


def test_a_choice_of_classes_shows_their_pairs_and_marks_their_cells(pages, page):
    page.open(pages["run"].resolve().as_uri(), 1280)
    every = len(page.evaluate(SHOWN))
    page.evaluate("document.querySelector('#pairs-shape ~ .filter select').focus()")
    page.press("h", "h")  # heart, class 5
    shown = page.evaluate(SHOWN)
    assert len(shown) == 10 < every
    assert all("5" in pair.split() for pair in shown)
    assert page.evaluate("document.querySelector('#pairs-shape ~ .filter output').textContent") == "10 of 30 shown"
    assert sorted(page.evaluate("[...document.querySelectorAll('.chosen')].map(c => c.dataset.pair)")) == sorted(shown)


def test_a_cell_of_the_picture_lies_where_it_seems_and_chooses_its_pair(pages, page):
    page.open(pages["run"].resolve().as_uri(), 1280)
    cell = "document.querySelector('#pairs .pair:nth-of-type(2) [data-pair=\"1 3\"]')"
    page.evaluate(f"{cell}.scrollIntoView({{block: 'center'}})")
    x, y = page.evaluate(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({cell}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert sorted(page.evaluate(SHOWN)) == ["1 3", "3 1"]
    assert page.evaluate("document.querySelector('.told').textContent").startswith("square → star: directional CDNV ")


def test_numbers_of_every_form_sort_as_numbers_and_missing_ones_last(page, tmp_path):
    cells = ["n/a", "> 100", "12,345", "", "÷17", "0.5 <small>0.1–9</small>", "×4", "3.1·10⁻⁷", "−2.5", "12.5%"]
    rows = "".join(f"<tr><td>{cell}</td></tr>" for cell in cells)
    script = (Path(report_page.__file__).parent / "page.js").read_text()
    table = f"<table><thead><tr><th>x</th></tr></thead><tbody>{rows}</tbody></table>"
    (tmp_path / "table.html").write_text(f"<meta charset=utf-8>{table}<script>{script}</script>")
    page.open((tmp_path / "table.html").as_uri(), 390)
    rising = ["−2.5", "3.1·10⁻⁷", "×4", "0.5 0.1–9", "12.5%", "÷17", "12,345", "> 100"]
    for expected in (rising, rising[::-1]):
        page.evaluate("document.querySelector('th button').click()")
        found = page.evaluate("[...document.querySelectorAll('td')].map(cell => cell.textContent)")
        assert found == [*expected, "n/a", ""]


def test_without_scripts_everything_is_there_and_nothing_needs_them(pages, page):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(pages["run"].resolve().as_uri(), 390)
        assert page.evaluate("document.querySelectorAll('th button, select, .told').length") == 0
        assert len(page.evaluate(SHOWN)) == 30
        assert page.evaluate("document.querySelectorAll('.tips title').length") > 500
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_policy_stops_any_other_script(pages, page, tmp_path):
    text = pages["run"].read_text()
    foreign = "<script>window.foreign = 1</script><img src=data: onerror='window.foreign = 2'>"
    (tmp_path / "changed.html").write_text(text.replace("</main>", f"{foreign}</main>"))
    page.complaints.clear()
    page.open((tmp_path / "changed.html").as_uri(), 390)
    assert page.evaluate("window.foreign") is None
    assert "Content Security Policy" in " ".join(page.complaints)
