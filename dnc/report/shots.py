"""Figures of few-shot error: what was measured, and what each certificate promised, against shots per class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from dnc.record import CertificateRecord, IntervalRecord, TaskRecord
from dnc.report import style
from dnc.report.run import Run

LABELS = {
    "cdnv": "CDNV",
    "luthra2025": "Luthra 2025",
    "luthra2026": "Luthra 2026",
    "luthra2026_limit": "Luthra 2026, m → ∞",
    "exact_chebyshev": "exact Chebyshev",
    "exact_cantelli": "exact Cantelli",
    "exact_joint": "exact joint",
    "exact_conditional": "exact conditional",
    "gaussian": "Gaussian",
}
_REMARKS = {  # curves that are not certificates
    "cdnv": "CDNV, up to const.",
    "gaussian": "Gaussian prediction",
    "luthra2026_limit": "Luthra 2026, m → ∞",
}
PANEL = (4.3, 3.4)  # inches
_COLORS = {
    "cdnv": style.PURPLE,
    "luthra2025": style.ORANGE,
    "luthra2026": style.GREEN,
    "luthra2026_limit": style.GREEN,
    "exact_chebyshev": style.SKY,
    "exact_cantelli": style.BLUE,
    "exact_joint": style.VERMILLION,
    "exact_conditional": style.WINE,
    "gaussian": style.MUTED,
}


def label(name: str) -> str:
    return LABELS.get(name, name)


def shots(run: Run) -> dict[str, list[style.Picture]]:
    """For each task a panel over all its classes and, when there are more than two, one over its two-class subtasks."""
    names = style.file_names(list(run.last.tasks))
    pictures: dict[str, list[style.Picture]] = {}
    for task, measured in run.last.tasks.items():
        if not measured.shots.size:
            continue
        before = run.first.tasks.get(task) if run.has_time else None
        shown = kinds(measured).items()
        pictures[task] = [_panel(task, measured, before, kind, title, names[task]) for kind, title in shown]
    return pictures


def kinds(task: TaskRecord) -> dict[str, str]:
    """What is drawn of a task, and its title."""
    k = task.num_classes
    return {"classes": f"{k} classes"} | ({"two_class": "two-class subtasks"} if k > 2 else {})


def chance(task: TaskRecord, kind: str) -> float:
    """Error of guessing: a bound above it says nothing."""
    return 0.5 if kind == "two_class" else 1 - 1 / task.num_classes


def bound(certificate: CertificateRecord, kind: str) -> np.ndarray:
    return certificate.two_class if kind == "two_class" else certificate.bound


def _panel(
    task: str, measured: TaskRecord, before: TaskRecord | None, kind: str, title: str, name: str
) -> style.Picture:
    figure = Figure(figsize=PANEL)
    draw(figure, measured, kind, f"{style.shorten(task, 24)}, {title}", before)
    m, error = measured.shots, _error(measured, kind)
    alt = f"{task}, {title}: nearest-center error {_list(m, error)}; " + "; ".join(
        f"{label(key)} {_list(m, values)}" for key, values in _curves(measured, kind).items()
    )
    return style.render(figure, f"shots_{name}_{kind}", alt)


def draw(figure: FigureBase, measured: TaskRecord, kind: str, heading: str, before: TaskRecord | None = None) -> None:
    """Error and bounds against shots, in a figure, or a part of one, of `PANEL` inches.

    kind: "classes", or "two_class" for the mean over two-class subtasks. before: the task at the start of training.
    """
    m, error, curves = measured.shots, _error(measured, kind), _curves(measured, kind)
    informative = {key: values for key, values in curves.items() if np.nanmin([np.inf, *values]) < 1}
    absent = ", ".join(label(key) for key in curves if key not in informative)
    subtitle = f"at 1 or above for every m: {absent}" if absent else ""
    axes = style.framed(figure, PANEL, heading, right=0.69, subtitle=subtitle, left=0.8)
    lowest = (style.octaves(error, *informative.values(), least=3) or (-3, 0))[0]
    limits = (min(max(lowest, -14), -2), 0)
    style.plain_log_shots(axes, m)
    axes.set_xlim(m.min() / 1.12, m.max() * 1.0)
    style.log2_axis(axes, limits, label=lambda exponent: style.fraction(2.0 ** round(exponent)))
    axes.axhspan(chance(measured, kind), 1, color=style.WASH, zorder=0, linewidth=0)
    if kind == "classes":  # intervals are of the bound over all classes
        for key in (key for key in informative if key in measured.intervals):
            _draw_interval(axes, m, measured.intervals[key], _COLORS.get(key, style.MUTED), 2.0 ** limits[0])
    labels = [("guessing", chance(measured, kind), style.MUTED)]
    labels += [_draw_bound(axes, key, m, values, measured.certificates[key]) for key, values in informative.items()]
    if before is not None and np.array_equal(before.shots, m):
        old = _error(before, kind)
        axes.plot(m, style.positive(old), color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 1.5)))
        labels.append(("error at the start", _last(old), style.MUTED))
    _draw_error(axes, m, error, measured.error.std if kind == "classes" else None, 2.0 ** limits[0])
    labels.append(("measured error", _last(error), style.INK))
    floor = 2.0 ** limits[0]  # what lies below the axis is labeled at its end
    style.label_ends(axes, [(text, max(end, floor), color) for text, end, color in labels], 8.0)
    axes.set_ylabel("error")


def _error(task: TaskRecord, kind: str) -> np.ndarray:
    return task.error.two_class if kind == "two_class" else task.error.mean


def _curves(measured: TaskRecord, kind: str) -> dict[str, np.ndarray]:
    """Every bound that the panel of this kind may show."""
    return {
        key: bound(certificate, kind)
        for key, certificate in measured.certificates.items()
        if not (key == "exact_joint" and kind == "two_class")  # two classes: the same as exact_cantelli
    }


def _draw_error(axes: Axes, m: np.ndarray, error: np.ndarray, std: np.ndarray | None, floor: float) -> None:
    """The measured error in ink with one standard deviation over repeats; an error of 0 sits on the axis, hollow."""
    if std is not None:
        low, high = np.maximum(error - std, floor), np.maximum(error + std, floor)
        axes.fill_between(m, low, high, color=style.INK, alpha=0.15, linewidth=0, zorder=3)
    axes.plot(
        m, np.maximum(error, floor), color=style.INK, linewidth=2.2, marker="o", markersize=3.5, zorder=4, clip_on=False
    )
    zero = error <= 0
    axes.plot(
        m[zero], np.full(zero.sum(), floor), "o", color=style.INK, markerfacecolor="white", zorder=5, clip_on=False
    )


def _draw_interval(axes: Axes, m: np.ndarray, interval: IntervalRecord, color: str, floor: float) -> None:
    """The confidence interval of a bound."""
    low, high = (np.clip(values, floor, 1.0) for values in (interval.low, interval.high))
    axes.fill_between(m, low, high, color=color, alpha=0.15, linewidth=0, zorder=1)


def _draw_bound(
    axes: Axes, key: str, m: np.ndarray, values: np.ndarray, certificate: CertificateRecord
) -> tuple[str, float, str]:
    """A line clipped at 1; where a theorem does not hold the line is thin and dotted; no certificate, dashed."""
    color = _COLORS.get(key, style.MUTED)
    shown = style.positive(np.minimum(values, 1.0))
    if key == "luthra2026_limit":  # of infinitely many shots: a mark at the end, not a curve that few shots could cross
        axes.plot([m.max() / 1.4, m.max()], [_last(shown)] * 2, color=color, linewidth=1.2, linestyle=(0, (4, 2)))
        return _REMARKS[key], _last(shown), color
    dashed = not certificate.is_certificate
    if not dashed:
        axes.plot(m, shown, color=color, linewidth=0.9, linestyle=(0, (1, 1.2)))
    solid = np.where(certificate.valid | dashed, shown, np.nan)
    axes.plot(m, solid, color=color, linewidth=1.2 if dashed else 1.6, linestyle=(0, (4, 2)) if dashed else "-")
    clipped = values >= 1
    axes.plot(m[clipped], shown[clipped], "^", color=color, markerfacecolor="white", markersize=4, clip_on=False)
    return _REMARKS.get(key, label(key)), _last(shown), color


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def _list(m: np.ndarray, values: np.ndarray) -> str:
    ends = [i for i in (0, len(m) - 1) if np.isfinite(values[i])]
    return ", ".join(f"{values[i]:.3g} at m = {m[i]:g}" for i in ends) or "n/a"
