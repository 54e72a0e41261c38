"""The baguette picture: equal CDNV, unequal directional CDNV, and which of the two the classifier feels."""

import functools
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from dnc.report import style

_VARIANCE = 1.0  # total within-class variance of every cloud, so that both pictures have the same CDNV
_POINTS = 240
_REACH = 2.35  # a loaf's half-widths, in standard deviations
_WIDE, _HIGH = 3.0, 2.43  # half the picture, with equal scales on both axes


@dataclass(frozen=True)
class Clouds:
    """Two classes of points in the plane, and their numbers as computed from the points drawn."""

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
    return tuple(_draw(name, title, scene) for name, title, scene in scenes)


def _draw(name: str, title: str, scene: Clouds) -> style.Picture:
    figure, axes = style.panel((4.3, 4.85), title)
    axes.set_position((0.02, 0.265, 0.96, 0.69))
    axes.set_xlim(-_WIDE, _WIDE)
    axes.set_ylim(-_HIGH, _HIGH)
    axes.set_axis_off()
    axes.plot([0, 0], [-_HIGH, 2.3], color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    for points, color in ((scene.first, style.ORANGE), (scene.second, style.BLUE)):
        _crust(axes, points, color)
        axes.plot(*points.T, ".", color=color, markersize=3, alpha=0.85, markeredgewidth=0)
    axes.plot([-1, 1], [0, 0], color=style.INK, linewidth=1.3)
    axes.plot([-1, 1], [0, 0], "o", color=style.INK, markersize=5, markeredgecolor="white", markeredgewidth=0.8)
    label = axes.text(0, 0.13, "decision axis u", ha="center", fontsize=8)
    label.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})
    _shadow(figure, scene)
    numbers = {
        "CDNV": f"{scene.cdnv:.2f}",
        "directional CDNV": f"{scene.directional_cdnv:.4f}",
        "error": f"{scene.error:.1%}",
    }
    for x, (what, value) in zip((0.14, 0.5, 0.86), numbers.items(), strict=True):
        figure.text(x, 0.05, value, ha="center", fontsize=12, color=style.VERMILLION if what[0] == "d" else style.INK)
        figure.text(x, 0.012, what, ha="center", fontsize=8, color=style.MUTED)
    alt = f"{title}: " + ", ".join(f"{what} {value}" for what, value in numbers.items())
    return style.render(figure, f"baguette_{name}", alt)


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
        axes.plot(*ends, color="white", linewidth=3, solid_capstyle="round")


def _shadow(figure: Figure, scene: Clouds) -> None:
    """What the nearest-mean rule sees: the points' positions along the decision axis."""
    axes = figure.add_axes((0.02, 0.15, 0.96, 0.125))
    edges = np.linspace(-_WIDE, _WIDE, 76)
    for points, color in ((scene.first, style.ORANGE), (scene.second, style.BLUE)):
        axes.stairs(np.histogram(points[:, 0], edges)[0], edges, fill=True, color=color, alpha=0.6)
    axes.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set_xlim(-_WIDE, _WIDE)
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
