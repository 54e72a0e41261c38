"""One palette, one typographic scale, and how a figure becomes an SVG and a PNG that are the same in every run."""

import contextlib
import io
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from dnc.report import tips

INK, MUTED, FAINT, WASH = "#1f2328", "#656d76", "#d6dade", "#f3f4f6"
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, WINE = "#E69F00", "#56B4E9", "#882255"
TASK_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)
TASK_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))

HALF, THIRD = (4.3, 3.05), (3.2, 2.35)  # inches: two or three panels per row on a desktop, one on a phone

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_THEME: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # names from users may hold $ and _: they are text
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.dpi": 180,
    "svg.fonttype": "none",  # text stays text: searchable; the page embeds the font it was laid out with
    "svg.hashsalt": "dnc",
}


@dataclass(frozen=True)
class Picture:
    """A rendered figure: `inline` goes into the page, `svg` and `png` into files called `name`."""

    name: str
    alt: str
    inline: str
    svg: str
    png: bytes
    width: float


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """Matplotlib's defaults plus the theme, whatever the user's own settings; figures are made and drawn inside."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has a font for it
        matplotlib.rcdefaults()
        for name, value in _THEME.items():
            matplotlib.rcParams[name] = value  # pyright: ignore[reportArgumentType]
        yield


def panel(
    size: tuple[float, float] = HALF, title: str = "", right: float = 0.97, subtitle: str = "", left: float = 0.62
) -> tuple[Figure, Axes]:
    """A figure with one set of axes, see `framed`."""
    figure = Figure(figsize=size)
    return figure, framed(figure, size, title, right, subtitle, left)


def framed(figure: FigureBase, size: tuple[float, float], title: str, right: float, subtitle: str, left: float) -> Axes:
    """Axes in a figure, or a part of one, of `size` inches: fixed margins, `right` a fraction for direct labels."""
    width, height = size
    lines = textwrap.wrap(subtitle, int(15.5 * width))
    left, bottom, top = left / width, 0.5 / height, 1 - (0.38 + 0.15 * len(lines) + 0.03 * bool(lines)) / height
    axes = figure.add_axes((left, bottom, right - left, top - bottom))
    figure.text(0.02 / width, 1 - 0.2 / height, title, fontsize=9.5)
    figure.text(0.02 / width, 1 - 0.28 / height, "\n".join(lines), fontsize=7.5, color=MUTED, va="top")
    return axes


def render(figure: Figure, name: str, alt: str) -> Picture:
    """Draw to SVG, with its tips, and PNG, without dates, versions or random ids."""
    vector, raster = io.StringIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(raster, format="png", metadata={"Software": None})
    drawn = vector.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    inline = drawn[drawn.index("<svg") :]
    inline = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", inline)  # ids are unique in a page of many figures
    width = figure.get_size_inches()[0] * 96
    opening = f'<svg role="img" aria-label="{escape(alt)}" class="figure"'
    inline = re.sub(r'^<svg (.*?)width="[^"]*"', r"<svg \1", inline, count=1, flags=re.DOTALL)
    inline = re.sub(r'^<svg (.*?)height="[^"]*"', r"<svg \1", inline, count=1, flags=re.DOTALL)
    inline = opening + inline.removeprefix("<svg")
    inline, svg = (f"{tips.svg(figure)}</svg>".join(text.rsplit("</svg>", 1)) for text in (inline, drawn))
    return Picture(name, alt, inline, svg, raster.getvalue(), width)


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A file name for each user-given name: letters and digits only, distinct."""
    result: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40] or "task"
        candidates = itertools.chain([base], (f"{base}_{i}" for i in itertools.count(2)))
        result[name] = next(c for c in candidates if c.lower() not in {r.lower() for r in result.values()})
    return result


def task_style(index: int) -> dict[str, Any]:
    """Color and dashes of the index-th task, the same in every figure."""
    cycle, color = divmod(index, len(TASK_COLORS))
    return {"color": TASK_COLORS[color], "linestyle": TASK_DASHES[cycle % len(TASK_DASHES)]}


def shorten(name: str, length: int = 16) -> str:
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def power_of_two(exponent: float | int) -> str:
    return "2" + str(round(exponent)).translate(SUPERSCRIPTS)


def fraction(value: float) -> str:
    """1, 1/2, 1/4, ... for powers of two."""
    return f"{value:g}" if value >= 1 else f"1/{round(1 / value)}"


def positive(values: np.ndarray) -> np.ndarray:
    """What a log axis can show: anything else becomes a gap."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def octaves(*arrays: np.ndarray, least: int = 2) -> tuple[int, int] | None:
    """Exponents of two that enclose all positive values, at least `least` octaves apart; None without any."""
    values = np.concatenate([positive(np.ravel(a)) for a in arrays] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = int(np.floor(np.log2(values.min()))), int(np.ceil(np.log2(values.max())))
    missing = max(0, least - (high - low))
    return low - (missing + 1) // 2, high + missing // 2


def log2_axis(
    axes: Axes, limits: tuple[int, int], most: int = 6, label=power_of_two, along: Literal["x", "y"] = "y"
) -> None:
    """A log axis with a tick and a hairline at powers of two."""
    low, high = limits
    every = max(1, -(-(high - low) // most))
    ticks = [e for e in range(low, high + 1) if e % every == 0]
    axes.set(**{f"{along}scale": "log"})
    axis = axes.yaxis if along == "y" else axes.xaxis
    axes.set(**{f"{along}lim": (2.0**low, 2.0**high)})
    axis.set_major_locator(FixedLocator([2.0**e for e in ticks]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(np.log2(value))))
    axes.grid(axis=along, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)


def time_axis(axes: Axes, unit: str, times: np.ndarray) -> None:
    """A log2 axis that still holds 0, as the paper draws epochs: linear up to the first positive time."""
    above = times[times > 0]
    axes.set_xlabel(unit)
    if not above.size:
        axes.set_xlim(-1, 1)
        axes.xaxis.set_major_locator(FixedLocator([0]))
        return
    first, last = float(above.min()), float(max(above.max(), 2 * above.min()))
    low, high = int(np.ceil(np.log2(first) - 1e-9)), int(np.floor(np.log2(last) + 1e-9))
    every = max(1, -(-(high - low) // 4))
    ticks = [2.0**e for e in range(high, low - 1, -every)]
    axes.set_xscale("symlog", base=2, linthresh=first, linscale=1.0)
    start = 0.0 if (times <= 0).any() else first
    axes.set_xlim(start, last)
    axes.xaxis.set_major_locator(FixedLocator(([0.0] if start == 0 else []) + ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: "0" if v == 0 else fraction(v) if v > 1 / 100 else power_of_two(np.log2(v)))
    )
    axes.spines["bottom"].set_bounds(start, last)
    axes.margins(x=0)


def spread(positions: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """The least-squares move of label positions that leaves neighbors `gap` apart and all within [low, high].

    With the gaps subtracted the constraint is monotonicity: pool adjacent violators, then clip.
    """
    order = np.argsort(positions, kind="stable")
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    offsets = gap * np.arange(len(positions))
    blocks: list[list[float]] = []
    for value in np.array(positions, float)[order] - offsets:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    fitted = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks] or [np.empty(0)])
    result = np.empty(len(positions))
    result[order] = np.clip(fitted, low, high - gap * (len(positions) - 1)) + offsets
    return result.tolist()


def label_ends(axes: Axes, labels: Sequence[tuple[str, float, str]], size: float = 8.5) -> None:
    """Name each line at its right end: (text, last y value, color), moved apart where they would overlap."""
    shown = [(text, float(y), color) for text, y, color in labels if np.isfinite(y)]
    if not shown:
        return
    heights = axes.transAxes.inverted().transform(
        [axes.transData.transform((axes.get_xlim()[1], y)) for _, y, _ in shown]
    )[:, 1]
    gap = 1.28 * size * axes.figure.dpi / 72 / axes.bbox.height
    for (text, _, color), at, moved in zip(shown, heights, spread(heights.tolist(), gap), strict=True):
        axes.plot(
            [1.005, 1.03], [at, moved], color=color, linewidth=0.6, transform=axes.transAxes, clip_on=False, alpha=0.7
        )
        axes.text(1.04, moved, text, color=color, fontsize=size, va="center", transform=axes.transAxes)


def empty(axes: Axes, why: str = "n/a: no finite positive value") -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", color=MUTED, transform=axes.transAxes)


def plain_log_shots(axes: Axes, shots: np.ndarray) -> None:
    """A log axis of shots per class whose ticks are the shot counts that were measured."""
    axes.set_xscale("log")
    chosen: list[float] = []
    for m in shots:
        if not chosen or m / chosen[-1] >= 1.7:
            chosen.append(float(m))
    axes.xaxis.set_major_locator(FixedLocator(chosen))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_xlabel("shots per class, m")
