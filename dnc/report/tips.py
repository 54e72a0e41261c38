"""Values on hover, without a script: invisible marks with a <title> over the points and cells of an SVG figure.

A mark is larger than the point below it, so that it is easily hit, and does not depend on how Matplotlib writes SVG.
"""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dnc.types import Float

_POINTS_PER_INCH = 72
_RADIUS = 5.0  # points


class Tips(Artist):
    """Draws nothing: holds places of its axes, in data coordinates, and what each tells; see `points` and `cells`.

    places are centers [n, 1, 2] of circles, or two opposite corners [n, 2, 2] of rectangles. keys: `data-pair` of each
    mark, for the page's script.
    """

    def __init__(
        self, places: Float[np.ndarray, "n c 2"], texts: Sequence[str], radius: float, keys: Sequence[str] | None
    ):
        super().__init__()
        self.places, self.texts, self.radius, self.keys = places, texts, radius, keys
        self.set_in_layout(False)

    def draw(self, renderer: object) -> None:
        pass

    def marks(self, axes: Axes, dots_per_inch: float, height: float) -> Iterator[str]:
        """SVG elements, with y downward from `height`."""
        n, corners, _ = self.places.shape
        at = axes.transData.transform(self.places.reshape(-1, 2)).reshape(n, corners, 2)
        at = at * _POINTS_PER_INCH / dots_per_inch
        keys = [""] * n if self.keys is None else [f' data-pair="{escape(key)}"' for key in self.keys]
        for place, text, key in zip(at, self.texts, keys, strict=True):
            if not np.isfinite(place).all():
                continue
            (x, low), (right, top) = place.min(axis=0), place.max(axis=0)
            y = height - top
            if corners == 1:
                shape, name = f'circle cx="{x:.1f}" cy="{y:.1f}" r="{self.radius:g}"', "circle"
            else:
                shape, name = f'rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{top - low:.1f}"', "rect"
            yield f"<{shape}{key}><title>{escape(text)}</title></{name}>"


def points(
    axes: Axes,
    x: np.ndarray | Sequence[float],
    y: np.ndarray | Sequence[float],
    texts: Sequence[str],
    radius: float = _RADIUS,
) -> None:
    """A mark around each point; those that are not finite have none."""
    places = np.stack([np.asarray(x, float), np.asarray(y, float)], axis=1)[:, None, :]
    axes.add_artist(Tips(places, texts, radius, None))


def line(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    unit: str,
    values: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
) -> None:
    """Points of a line, as in "measured error, m = 5: 0.12 ± 0.01", for the unit "m =".

    values: what to tell where that is not `y`, which a figure may have clipped.
    """
    told = zip(x, y if values is None else values, strict=True)
    texts = [f"{name}, {unit} {at:.4g}: {value(number)}" for at, number in told]
    if deviation is not None:
        texts = [f"{text} ± {value(width)}" for text, width in zip(texts, deviation, strict=True)]
    points(axes, x, y, texts)


def value(number: float) -> str:
    return f"{number:.3g}" if np.isfinite(number) else "n/a"


def cells(
    axes: Axes,
    rows: Sequence[int] | np.ndarray,
    columns: Sequence[int] | np.ndarray,
    texts: Sequence[str],
    keys: Sequence[str] | None = None,
) -> None:
    """Cells of a matrix that `imshow` drew."""
    center = np.stack([np.asarray(columns, float), np.asarray(rows, float)], axis=1)
    boxes(axes, np.stack([center - 0.5, center + 0.5], axis=1), texts, keys)


def boxes(
    axes: Axes, corners: Float[np.ndarray, "n 2 2"], texts: Sequence[str], keys: Sequence[str] | None = None
) -> None:
    """Rectangles between these corners, such as bars."""
    axes.add_artist(Tips(corners, texts, 0.0, keys))


def svg(figure: Figure) -> str:
    """The marks of all its axes as one group, or nothing; after the figure was drawn."""
    height = figure.get_size_inches()[1] * _POINTS_PER_INCH
    marks = [
        mark
        for axes in figure.axes
        for tips in axes.artists
        if isinstance(tips, Tips)
        for mark in tips.marks(axes, figure.dpi, height)
    ]
    return f'<g class="tips" fill="none" pointer-events="all">{"".join(marks)}</g>\n' if marks else ""
