"""The documentation: its Python examples run, its API pages name what exists, and the site builds without warnings."""

import doctest
import importlib
import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import dnc
from tests.test_architecture import GROUND, MAY_IMPORT

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
CONTRIBUTING = "../CONTRIBUTING.md"
SITE_TOOLS = ("mkdocs", "material", "mkdocstrings_handlers", "latex2mathml")


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


QUICK = ("index.md", CONTRIBUTING)  # the others run in the slow suite


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page in QUICK else pytest.mark.slow)
        for page in [*PAGES, CONTRIBUTING]
        if "```python" in text_of(page)
    ],
)
def test_examples_run_in_order(page, tmp_path, monkeypatch):
    text, scope = text_of(page), {}
    examples = list(FENCE.finditer(text))
    assert len(examples) == text.count("```python"), "a fence that is indented or not closed would not run"
    monkeypatch.chdir(tmp_path)
    for example in examples:
        lines_before = text.count("\n", 0, example.start(1))  # tracebacks then show lines of the page
        exec(compile("\n" * lines_before + example[1], str(DOCS / page), "exec"), scope)


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert citation["version"] == dnc.__version__
    assert f"## [{dnc.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dnc.distribution.VERSION"}


@pytest.mark.parametrize("page", ["CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_map_agrees_with_the_architecture():
    """The page's table of allowed imports is the one that the architecture test enforces; its tree names every room."""
    page = text_of("architecture.md")
    allowed = {}
    for rooms, targets in re.findall(r"^\| (`\w+`.*?) \| (nothing|`.*?) \|$", page, re.MULTILINE):
        allowed |= {key: set(re.findall(r"`(\w+)`", targets)) for key in re.findall(r"`(\w+)`", rooms)}
    enforced = {unit: targets - GROUND for unit, targets in MAY_IMPORT.items() if unit not in GROUND}
    assert allowed == {unit: targets for unit, targets in enforced.items() if not unit.startswith("__")}
    rooms = {path.name for path in (ROOT / "dnc").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(re.findall(r"^      (\w+)/ ", page, re.MULTILINE))


def test_api_pages_name_what_exists():
    """The site's builder silently leaves out unknown members."""
    missing, checked = [], 0
    for page in PAGES:
        for block in re.finditer(r"^::: (\S+)\n((?:    .*\n)*)", text_of(page), re.MULTILINE):
            module = importlib.import_module(block[1])
            members = re.search(r"members: \[(.*?)\]", block[2], re.DOTALL)
            names = members[1].split(",") if members else []
            missing += [f"{page}: {block[1]}.{name.strip()}" for name in names if not hasattr(module, name.strip())]
            checked += 1
    assert checked
    assert missing == []


@pytest.mark.parametrize(
    "module",
    [
        "dnc.certificates.bounds",
        "dnc.geometry.axes",
        "dnc.geometry.measure",
        "dnc.geometry.moments",
        "dnc.geometry.pairs",
        "dnc.geometry.spectrum",
        "dnc.geometry.validation",
    ],
)
def test_docstring_examples_run(module):
    finder = doctest.DocTestFinder(exclude_empty=True)
    source = importlib.import_module(module)
    tests = [test for name in vars(source) for test in _examples(finder, source, name)]
    assert tests
    for test in tests:
        report: list[str] = []
        failed, _ = doctest.DocTestRunner().run(test, out=report.append)
        assert not failed, "".join(report)


def _examples(finder, source, name):
    """Examples of a public object of the module, also where a jitted wrapper hides the function."""
    value = inspect.unwrap(getattr(source, name)) if callable(getattr(source, name)) else None
    if value is None or getattr(value, "__module__", None) != source.__name__:
        return []
    return [test for test in finder.find(value, name, module=False, globs=dict(vars(source))) if test.examples]


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    missing = [tool for tool in SITE_TOOLS if importlib.util.find_spec(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {page.removesuffix(".md") + ".html" for page in PAGES}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")} >= pages
    for page in pages:  # math, scripts and search come with the pages
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert "arithmatex" not in text
        assert not re.search(r'<(script|link)[^>]*(src|href)="(https?:)?//', text)
    assert "<math" in (tmp_path / "concepts/certificates.html").read_text(encoding="utf-8")
    assert (tmp_path / "search/search_index.js").is_file()
