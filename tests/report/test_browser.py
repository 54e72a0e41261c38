"""The page in a real browser: nothing complains, everything loads, nothing scrolls sideways, and it prints."""

import pytest

from dnc.report.html import write_report
from tests.report import browser, synthetic

pytestmark = pytest.mark.skipif(browser.EXECUTABLE is None, reason=browser.MISSING)

LONG = "an_unbroken_class_name_" * 6


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A whole run, and a single analysis with names that try to break the layout."""
    folder = tmp_path_factory.mktemp("browser")
    workdir = synthetic.workdir(folder / "run", steps=(0, 10, 100))
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
