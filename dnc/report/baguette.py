"""The baguette picture: equal CDNV, unequal directional CDNV, and which of the two the classifier feels."""

from dataclasses import dataclass

import numpy as np
from matplotlib.patches import FancyBboxPatch

from dnc.report import style

_VARIANCE = 1.2  # total within-class variance of every cloud, so that both pictures have the same CDNV
_POINTS = 220


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
    first, second = (_white(generator) * scale + centre for centre in ([-1.0, 0.0], [1.0, 0.0]))
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


def picture() -> list[style.Picture]:
    """Two baguettes beside two round clouds of the same CDNV."""
    scenes = [("baguettes", "two baguettes", clouds(0.015)), ("round", "two round loaves", clouds(0.5))]
    return [_draw(name, title, scene) for name, title, scene in scenes]


def _draw(name: str, title: str, scene: Clouds) -> style.Picture:
    figure, axes = style.panel((4.3, 4.3), title)
    axes.set_position((0.02, 0.29, 0.96, 0.62))
    axes.set_title(title, x=0.02)
    axes.set_xlim(-3.4, 3.4)
    axes.set_ylim(-3.05, 3.05 + 0.0)
    axes.set_axis_off()
    axes.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    for points, colour in ((scene.first, style.ORANGE), (scene.second, style.BLUE)):
        _crust(axes, points, colour)
        axes.plot(*points.T, ".", color=colour, markersize=3, alpha=0.75, markeredgewidth=0)
    axes.annotate(
        "", (1, 0), (-1, 0), arrowprops={"arrowstyle": "<->", "color": style.INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    )
    axes.plot([-1, 1], [0, 0], "o", color=style.INK, markersize=4.5)
    axes.text(0, 0.12, "decision axis u", ha="center", fontsize=8, backgroundcolor=(1, 1, 1, 0.75)).set_bbox(
        {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
    )
    _shadow(figure, scene)
    numbers = f"CDNV {scene.cdnv:.2f}      directional CDNV {scene.directional_cdnv:.4f}      error {scene.error:.1%}"
    figure.text(0.5, 0.025, numbers, ha="center", fontsize=9, color=style.INK)
    alt = f"{title}: CDNV {scene.cdnv:.2f}, directional CDNV {scene.directional_cdnv:.4f}, nearest-mean error {scene.error:.1%}"
    return style.render(figure, f"baguette_{name}", alt)


def _crust(axes, points: np.ndarray, colour: str) -> None:
    """A loaf that holds the middle 2.1 standard deviations."""
    half = 2.1 * points.std(0)
    low = points.mean(0) - half
    rounding = float(min(half))
    axes.add_patch(
        FancyBboxPatch(
            (low[0] + rounding, low[1] + rounding),
            2 * (half[0] - rounding) + 1e-9,
            2 * (half[1] - rounding) + 1e-9,
            boxstyle=f"round,pad={rounding}",
            facecolor=colour,
            alpha=0.13,
            linewidth=0,
        )
    )


def _shadow(figure, scene: Clouds) -> None:
    """What the nearest-mean rule sees: the points' positions along the decision axis."""
    axes = figure.add_axes((0.02, 0.115, 0.96, 0.16))
    edges = np.linspace(-3.4, 3.4, 86)
    for points, colour in ((scene.first, style.ORANGE), (scene.second, style.BLUE)):
        axes.hist(points[:, 0], edges, color=colour, alpha=0.6)
    axes.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set_xlim(-3.4, 3.4)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines[["left"]].set_visible(False)
    axes.set_xlabel("positions along u, all that the classifier uses", labelpad=3)


def _white(generator: np.random.Generator) -> np.ndarray:
    points = generator.normal(size=(_POINTS, 2))
    points -= points.mean(0)
    vectors, _, others = np.linalg.svd(points, full_matrices=False)
    return np.sqrt(_POINTS) * vectors @ others
