"""Write the report: a page that works offline, its figures as files, and its numbers as tables.

write_report("runs/simclr", "runs/simclr/report")
"""

import base64
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from dnc.report import baguette, fonts, numbers, over_time, pairs, shots, style, summary
from dnc.report.run import Run, load

_HERE = Path(__file__).parent
_MARK = '<meta name="generator" content="dnc report">'
_SHEET_BYTES = 500_000


def write_report(source: Run | str | Path | Sequence[str | Path], output: str | Path) -> Path:
    """Write `output`/index.html with figures/, numbers.json and numbers.csv, return the page's path.

    `source` is a run (see `dnc.report.run`), a workdir (measurements/step_*.json, and where they exist metrics.jsonl,
    config.json, environment.json, images/contact_sheet.png), one analysis file, or several of one run. The report is
    rendered beside `output` and then put in place, so an interrupted call leaves the old report; files of other
    origin in an old report's folder stay.

    Raises:
        FileNotFoundError: `source` holds no analysis.
        ValueError: a file does not follow the schema.
        FileExistsError: `output` holds files but no report, so replacing it could lose them.
    """
    output = Path(output)
    refuse_foreign(output)
    run = source if isinstance(source, Run) else load(source)
    with in_place_of(output) as folder:
        _render(run, folder)
    return output / "index.html"


@contextmanager
def in_place_of(output: Path) -> Iterator[Path]:
    """A new folder that replaces `output` when the block ends; files in `output` that it does not have stay."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.resolve().parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        _replace(fresh, output, old)


def refuse_foreign(output: Path) -> None:
    """Raise FileExistsError unless `output` is new, empty, or an older report."""
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output={str(output)!r} is a file: name a directory")
    page = output / "index.html"
    ours = page.is_file() and _MARK in page.read_text(encoding="utf-8", errors="replace")[:2000]
    if output.exists() and any(output.iterdir()) and not ours:
        raise FileExistsError(f"output={str(output)!r} holds other files: name a new or empty directory")


def _replace(fresh: Path, output: Path, old: Path) -> None:
    if output.exists():
        output.rename(old)
    try:
        fresh.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    if old.exists():
        for entry in old.iterdir():
            if not (output / entry.name).exists():
                shutil.move(entry, output / entry.name)


def _render(run: Run, directory: Path) -> None:
    with style.theme():
        figures = _draw(run)
    everything = [picture for group in figures.values() for picture in _flat(group)]
    save_figures(everything, directory)
    headline = summary.headline(run)
    rows = numbers.records(run)
    (directory / "numbers.json").write_text(numbers.to_json(run, headline, rows), encoding="utf-8")
    (directory / "numbers.csv").write_text(numbers.to_csv(rows), encoding="utf-8")
    page = _page(run, headline, figures, everything)
    (directory / "index.html").write_text(page, encoding="utf-8")


def save_figures(pictures: Iterable[style.Picture], directory: Path) -> None:
    """Every picture as SVG and PNG, in figures/."""
    (directory / "figures").mkdir()
    for picture in pictures:
        (directory / "figures" / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
        (directory / "figures" / f"{picture.name}.png").write_bytes(picture.png)


def _draw(run: Run) -> dict[str, Any]:
    over = run.has_time
    return {
        "collapse": over_time.collapse(run) if over else [],
        "baguette": baguette.pictures(),
        "shots": shots.shots(run),
        "cosines": over_time.cosines(run) if over else [],
        "interference": pairs.interference(run),
        "variance": over_time.variance(run),
        "pairs": pairs.heatmaps(run),
        "loss": over_time.loss(run),
    }


def _flat(group: Any) -> list[style.Picture]:
    if isinstance(group, style.Picture):
        return [group]
    items = group.values() if isinstance(group, dict) else group
    return [picture for item in items for picture in _flat(item)]


def _page(run: Run, headline: str, figures: dict[str, Any], everything: list[style.Picture]) -> str:
    return render(
        "template.html",
        everything,
        run=run,
        headline=headline,
        rows=summary.task_rows(run),
        first_shots=summary.first_shots(run),
        checks=summary.checks(run),
        certificate_label=shots.label,
        certified=[
            name
            for name, certificate in next(iter(run.last.tasks.values())).certificates.items()
            if certificate.is_certificate and name != "exact_joint"  # for two classes it is exact_cantelli
        ],
        colors={task: style.task_style(index)["color"] for index, task in enumerate(run.last.tasks)},
        sparks={task: sparkline(run.series(task, "mean_directional_cdnv"), run.times()[1]) for task in run.last.tasks},
        hardest={name: summary.hardest_pairs(task) for name, task in run.last.tasks.items()},
        largest={
            name: float(np.nanmax([0.0, *task.directional_cdnv.ravel()])) for name, task in run.last.tasks.items()
        },
        figures=figures,
        contact_sheet=contact_sheet(run.contact_sheet),
        details={"Configuration": run.config, "Environment": run.environment},
        pretty=lambda record: json.dumps(record, indent=2, ensure_ascii=False),
    )


def render(template: str, pictures: Sequence[style.Picture], **values: Any) -> str:
    """A page of this folder's template, with the style, the font its pictures need, and all text escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        number=number,
        power=power,
        brief=lambda name: style.shorten(name, 60),
        percent=percent,
        svg=lambda picture: Markup(picture.inline),
    )
    css = (_HERE / "style.css").read_text(encoding="utf-8")
    text = "".join(re.sub(r"<[^>]*>", "", picture.svg) for picture in pictures)
    return environment.get_template(template).render(
        mark=Markup(_MARK), css=Markup(fonts.font_face(text) + css), **values
    )


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for a person, or n/a."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:,.0f}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(style.SUPERSCRIPTS)}".replace("-", "−")


def percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "n/a"


def power(value: float) -> str:
    """A positive number as a power of two to one decimal, as the paper prints it, or n/a."""
    return f"{math.log2(value):.1f}".replace("-", "−") if math.isfinite(value) and value > 0 else "n/a"


def sparkline(values: np.ndarray, times: np.ndarray) -> str:
    """Points of an 80 x 20 polyline: log value against the rank of the measured step; empty with fewer than two."""
    shown = style.positive(values)
    known = np.isfinite(shown)
    if known.sum() < 2:
        return ""
    heights = np.log2(shown[known])
    across = np.linspace(2, 78, len(times))[known]
    down = 3 + 14 * (heights.max() - heights) / max(heights.max() - heights.min(), 1e-9)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))


def contact_sheet(png: bytes | None) -> str | None:
    """The image as a data URI, made smaller when it would weigh the page down; None when missing or unreadable."""
    if png is None:
        return None
    try:
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            if len(png) <= _SHEET_BYTES and image.format == "PNG":
                return _data_uri(png, "png")
            small = image.convert("RGB")
            small.thumbnail((1200, 1200))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
            return _data_uri(buffer.getvalue(), "jpeg")
    except OSError:
        return None


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
