"""The baguette picture: equal CDNV, unequal directional CDNV, and which of the two the classifier feels."""

import functools
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from dnc.report import style, tips

_VARIANCE = 1.0  # total within-class variance of every cloud, so that both pictures have the same CDNV
_POINTS = 240
_REACH = 2.35  # a loaf's half-widths, in standard deviations
_WIDE = 3.0  # half the picture
HIGH = 0.81  # of its width, with equal scales on both axes
BINS = 75


COLORS = (style.ORANGE, style.BLUE)


@dataclass(frozen=True)
class Clouds:
    """Two classes of points in the plane, around (-1, 0) and (1, 0), and the numbers of what they stand for."""

    first: np.ndarray
    second: np.ndarray
    cdnv: float
    directional_cdnv: float
    error: float


def clouds(along_axis: float, seed: int = 0) -> Clouds:
    """Two clouds around (-1, 0) and (1, 0) whose share `along_axis` of the variance lies on the decision axis.

    Draws are whitened, so that the moments of the points are those asked for, and both pictures have the same CDNV.
    """
    generator = np.random.default_rng(seed)
    scale = np.sqrt(_VARIANCE * np.array([along_axis, 1 - along_axis]))
    first, second = (_white(generator) * scale + center for center in ([-1.0, 0.0], [1.0, 0.0]))
    return Clouds(first, second, *measure(first, second))


def measure(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """CDNV, directional CDNV (mean of the two orders) and error of the nearest of the two means, of points [n, 2]."""
    means = np.stack([first.mean(0), second.mean(0)])
    distance = np.linalg.norm(means[1] - means[0])
    axis = (means[1] - means[0]) / distance
    cdnv = (first.var(0).sum() + second.var(0).sum()) / distance**2
    directional = ((first @ axis).var() + (second @ axis).var()) / 2 / distance**2
    middle = means.mean(0) @ axis
    error = ((first @ axis > middle).mean() + (second @ axis < middle).mean()) / 2
    return float(cdnv), float(directional), float(error)


@functools.cache
def pictures() -> tuple[style.Picture, ...]:
    """Two baguettes beside two round clouds of the same CDNV."""
    scenes = [("baguettes", "two baguettes", clouds(0.015)), ("round", "two round loaves", clouds(0.5))]
    return tuple(_draw_loaves(name, title, scene) for name, title, scene in scenes)


def _draw_loaves(name: str, title: str, scene: Clouds) -> style.Picture:
    figure, axes = style.panel((4.3, 4.85), title)
    draw(figure, axes, scene, _WIDE)
    for points, color in zip((scene.first, scene.second), COLORS, strict=True):
        _crust(axes, points, color)
    label = axes.text(0, 0.13, "decision axis u", ha="center", fontsize=8)
    label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})
    return finish(figure, scene, f"baguette_{name}", title)


def draw(figure: Figure, axes: Axes, scene: Clouds, wide: float, names: tuple[str, str] = ("left", "right")) -> None:
    """Points and means on the decision axis, from -wide to wide, and below it their histograms along the axis."""
    high = HIGH * wide
    width, height = figure.get_size_inches()
    axes.set_position((0.02, 0.265, 0.96, 0.96 * HIGH * width / height))
    axes.set_xlim(-wide, wide)
    axes.set_ylim(-high, high)
    axes.set_axis_off()
    axes.plot([0, 0], [-high, 0.95 * high], color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    for points, color in zip((scene.first, scene.second), COLORS, strict=True):
        axes.plot(*points.T, ".", color=color, markersize=3, alpha=0.85, markeredgewidth=0)
    axes.plot([-1, 1], [0, 0], color=style.INK, linewidth=1.3, zorder=3)
    axes.plot(
        [-1, 1], [0, 0], "o", color=style.INK, markersize=5, markeredgecolor="white", markeredgewidth=0.8, zorder=3
    )
    _shadow(figure, scene, wide, names)


def finish(figure: Figure, scene: Clouds, name: str, title: str) -> style.Picture:
    """The scene's numbers at the bottom, and the picture."""
    numbers = {
        "CDNV": _decimals(scene.cdnv, 2),
        "directional CDNV": _decimals(scene.directional_cdnv, 4),
        "error": f"{scene.error:.1%}" if np.isfinite(scene.error) else "n/a",
    }
    for x, (what, value) in zip((0.14, 0.5, 0.86), numbers.items(), strict=True):
        figure.text(x, 0.05, value, ha="center", fontsize=12, color=style.VERMILLION if what[0] == "d" else style.INK)
        figure.text(x, 0.012, what, ha="center", fontsize=8, color=style.MUTED)
    alt = f"{title}: " + ", ".join(f"{what} {value}" for what, value in numbers.items())
    return style.render(figure, name, alt)


def _decimals(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value >= 10.0**-digits else tips.value(value)


def _crust(axes: Axes, points: np.ndarray, color: str) -> None:
    """A loaf around nearly all points; a long one has the cuts that a baker makes."""
    center, half = points.mean(0), _REACH * points.std(0)
    straight, radius = half - half.min(), half.min()
    angles = np.linspace(0, 2 * np.pi, 121)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    axes.add_patch(Polygon(center + np.sign(circle) * straight + radius * circle, color=color, alpha=0.2, linewidth=0))
    if half.max() < 2 * radius:
        return
    for row in np.linspace(-0.9, 0.9, 7) * straight[1]:
        across, up = 0.6 * radius, 0.45 * radius
        ends = center[0] + np.array([-across, across]), center[1] + row + np.array([-up, up])
        axes.plot(*ends, color="white", linewidth=3, solid_capstyle="round", zorder=1.5)


def _shadow(figure: Figure, scene: Clouds, wide: float, names: tuple[str, str]) -> None:
    """What the nearest-mean rule sees: the points' positions along the decision axis."""
    axes = figure.add_axes((0.02, 0.15, 0.96, 0.125))
    edges = np.linspace(-wide, wide, BINS + 1)
    counts = [np.histogram(points[:, 0], edges)[0] for points in (scene.first, scene.second)]
    for of_class, color in zip(counts, COLORS, strict=True):
        axes.stairs(of_class, edges, fill=True, color=color, alpha=0.6)
    held = np.flatnonzero(counts[0] + counts[1])
    corners = [[[edges[i], 0], [edges[i + 1], max(counts[0][i], counts[1][i])]] for i in held]
    texts = [
        f"{edges[i]:.2f} to {edges[i + 1]:.2f} along u: {counts[0][i]} of {names[0]}, {counts[1][i]} of {names[1]}"
        for i in held
    ]
    tips.boxes(axes, np.array(corners, float).reshape(-1, 2, 2), texts)
    axes.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set_xlim(-wide, wide)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines[["left"]].set_visible(False)
    axes.set_xlabel("positions along u: all that the classifier uses", labelpad=3, fontsize=8)


def _white(generator: np.random.Generator) -> np.ndarray:
    """Normal points without stragglers, then moved and turned to mean 0 and covariance I exactly."""
    points = generator.normal(size=(2 * _POINTS, 2))
    points = points[np.linalg.norm(points, axis=1) < 2.4][:_POINTS]
    points -= points.mean(0)
    vectors, _, others = np.linalg.svd(points, full_matrices=False)
    return np.sqrt(_POINTS) * vectors @ others
