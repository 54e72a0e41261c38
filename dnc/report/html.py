"""Write the report: a page that works offline, its figures as files, and its numbers as tables.

write_report("runs/simclr", "runs/simclr/report")
"""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnc import distribution
from dnc.names import clean
from dnc.report import (
    baguette,
    energy,
    folder,
    numbers,
    over_time,
    page,
    pair_views,
    pairs,
    shots,
    style,
    summary,
    thumbnails,
)
from dnc.report.headline import headline as headline_of
from dnc.report.run import Run, load

_SHEET_BYTES = 500_000


def write_report(
    source: Run | str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    first: Mapping[str, str | bytes] | None = None,
) -> Path:
    """Write `output`/index.html with figures/, numbers.json and numbers.csv, return the page's path.

    `source` is a run (see `dnc.report.run`), a workdir (measurements/step_*.json, and where they exist metrics.jsonl,
    config.json, environment.json, images/contact_sheet.png, images/hardest_*.png), one analysis file, or several of one
    run. first: files by name that are there even if the page cannot be made. An older report is replaced, its page
    last; files of other origin in its folder stay.

    Raises:
        FileNotFoundError: `source` holds no analysis.
        ValueError: a file does not follow the schema.
        FileExistsError: `output` holds files but no report, or a file that no report wrote by the name of one.
    """
    output = Path(output)
    folder.check(output)
    run = source if isinstance(source, Run) else load(source)
    if first:
        folder.write(output, first)
    contents = _contents(run)
    folder.write(output, contents)
    folder.keep_only(output, {*(first or ()), *contents})
    return output / "index.html"


def _contents(run: Run) -> dict[str, str | bytes]:
    """The report's files by name, the page last."""
    with style.theme():
        figures = _draw(run)
    everything = [picture for group in figures.values() for picture in _flat(group)]
    headline = headline_of(run)
    rows = numbers.records(run)
    return {
        **figure_files(everything),
        "numbers.json": numbers.to_json(run, headline, rows),
        "numbers.csv": numbers.to_csv(rows),
        "index.html": _page(run, headline, figures, everything),
    }


def figure_files(pictures: Iterable[style.Picture]) -> dict[str, str | bytes]:
    """Every picture as SVG and PNG, in figures/."""
    return {
        f"figures/{picture.name}.{suffix}": content
        for picture in pictures
        for suffix, content in (("svg", picture.svg), ("png", picture.png))
    }


def _draw(run: Run) -> dict[str, Any]:
    over = run.has_time
    return {
        "collapse": over_time.collapse(run) if over else [],
        "views": (views := pair_views.pictures(run)),
        "baguette": () if views else baguette.pictures(),
        "shots": shots.shots(run),
        "cosines": over_time.cosines(run) if over else [],
        "interference": pairs.interference(run),
        "variance": over_time.variance(run),
        "pairs": pairs.heatmaps(run),
        "distributions": pairs.distributions(run),
        "energy": energy.early(run),
        "loss": over_time.loss(run),
    }


def _flat(group: Any) -> list[style.Picture]:
    if isinstance(group, style.Picture):
        return [group]
    items = group.values() if isinstance(group, dict) else group
    return [picture for item in items for picture in _flat(item)]


def _page(run: Run, headline: str, figures: dict[str, Any], everything: list[style.Picture]) -> str:
    tasks = run.last.tasks
    hard = {name: task.hardest[: thumbnails.MOST] for name, task in tasks.items() if task.hardest}
    return page.render(
        "template.html",
        everything,
        run=run,
        headline=headline,
        rows=summary.task_rows(run),
        first_shots=summary.first_shots(run),
        checks=summary.checks(run),
        drawn={key for task in tasks.values() for kind in shots.kinds(task) for key in shots.tightest(task, kind)},
        confidence=next((task.guarantee.confidence for task in tasks.values() if task.guarantee), None),
        needed=summary.labels_needed(run),
        hard=hard,
        thumbnails=thumbnails.data_uris(run.thumbnails, hard),
        has_intervals=any(task.intervals for task in tasks.values()),
        spectrum=summary.spectrum(run),
        reasons=summary.reasons(run),
        unbounded=any(not math.isfinite(axes.bound.get("median", math.nan)) for axes in run.last.axes.values()),
        provenance={**summary.provenance(run), "dnc": distribution.VERSION},
        certificate_label=shots.label,
        certified=[
            name
            for name, certificate in next(iter(tasks.values())).certificates.items()
            if certificate.is_certificate and name != "exact_joint"  # for two classes it is exact_cantelli
        ],
        slugs=style.file_names(list(tasks)),
        colors={task: style.task_style(index)["color"] for index, task in enumerate(tasks)},
        sparks={task: sparkline(run.series(task, "mean_directional_cdnv"), run.times()[1]) for task in tasks},
        hardest={name: summary.hardest_pairs(task) for name, task in tasks.items()},
        largest={name: float(np.nanmax([0.0, *task.directional_cdnv.ravel()])) for name, task in tasks.items()},
        drawn_of_views=pair_views.most_drawn(run),
        figures=figures,
        contact_sheet=contact_sheet(run.contact_sheet),
        details={"Configuration": run.config, "Environment": run.environment},
        named=lambda sample: f"row {sample.row}" if sample.id is None else sample.id,
        pretty=lambda record: "\n".join(map(clean, json.dumps(record, indent=2, ensure_ascii=False).split("\n"))),
    )


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
