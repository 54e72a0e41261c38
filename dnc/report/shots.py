"""Figures of few-shot error against shots per class: measured, predicted, guaranteed and certified."""

from collections.abc import Collection

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from dnc.record import CertificateRecord, IntervalRecord, TaskRecord
from dnc.report import style, tips
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
}
_REMARKS = {  # curves that are not certificates
    "cdnv": "CDNV, up to const.",
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
}
_PREDICTED, _GUARANTEED = style.ORANGE, style.PURPLE
_BEYOND = 2.0  # how far past the largest measured number of shots a prediction is drawn


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


def tightest(task: TaskRecord, kind: str) -> tuple[str, ...]:
    """The certificates that a report draws: the tightest, and the published one; all where there are none of these."""
    joint = kind == "classes" and task.num_classes > 2 and "exact_joint" in task.certificates
    wanted = ("luthra2026", "exact_joint" if joint else "exact_cantelli", "exact_conditional")
    return tuple(name for name in wanted if name in task.certificates) or tuple(task.certificates)


def _panel(
    task: str, measured: TaskRecord, before: TaskRecord | None, kind: str, title: str, name: str
) -> style.Picture:
    figure, shown = Figure(figsize=PANEL), tightest(measured, kind)
    draw(figure, measured, kind, f"{style.shorten(task, 24)}, {title}", before, shown)
    m, error = measured.shots, _error(measured, kind)
    lines = {"nearest-center error": (m, error)}
    if (predicted := _predicted(measured, kind)) is not None:
        lines["predicted error"] = predicted
    if (guaranteed := _guaranteed(measured, kind)) is not None:
        lines[f"upper bound of the error on new data, {guaranteed[0]}"] = m, guaranteed[1]
    lines |= {label(key): (m, values) for key, values in _curves(measured, kind, shown).items()}
    alt = f"{task}, {title}: " + "; ".join(f"{what} {_list(*line)}" for what, line in lines.items())
    return style.render(figure, f"shots_{name}_{kind}", alt)


def draw(
    figure: FigureBase,
    measured: TaskRecord,
    kind: str,
    heading: str,
    before: TaskRecord | None = None,
    certificates: Collection[str] | None = None,
) -> None:
    """Error and bounds against shots, in a figure, or a part of one, of `PANEL` inches.

    kind: "classes", or "two_class" for the mean over two-class subtasks. before: the task at the start of training.
    certificates: those to draw; all by default.
    """
    m, error, curves = measured.shots, _error(measured, kind), _curves(measured, kind, certificates)
    informative = {key: values for key, values in curves.items() if np.nanmin([np.inf, *values]) < 1}
    absent = ", ".join(label(key) for key in curves if key not in informative)
    subtitle = f"at 1 or above up to m = {m.max()}: {absent}" if absent else ""
    predicted, guaranteed = _predicted(measured, kind), _guaranteed(measured, kind)
    axes = style.framed(figure, PANEL, heading, right=0.69, subtitle=subtitle, left=0.8)
    ahead = np.empty(0) if predicted is None else predicted[1]
    lowest = (style.octaves(error, *informative.values(), ahead, least=3) or (-3, 0))[0]
    limits = (min(max(lowest, -14), -2), 0)
    end = max(m.max(), predicted[0].max() if predicted else 0)
    style.plain_log_shots(axes, np.array(sorted({*m.tolist(), end})))
    axes.set_xlim(m.min() / 1.12, end)
    style.log2_axis(axes, limits, label=lambda exponent: style.fraction(2.0 ** round(exponent)))
    axes.axhspan(chance(measured, kind), 1, color=style.WASH, zorder=0, linewidth=0)
    floor = 2.0 ** limits[0]
    if kind == "classes":  # intervals are of the bound over all classes
        for key in (key for key in informative if key in measured.intervals):
            _draw_interval(axes, m, measured.intervals[key], _COLORS.get(key, style.MUTED), floor)
    labels = [("guessing", chance(measured, kind), style.MUTED)]
    labels += [_draw_bound(axes, key, m, values, measured.certificates[key]) for key, values in informative.items()]
    if before is not None and np.array_equal(before.shots, m):
        old = _error(before, kind)
        axes.plot(m, style.positive(old), color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 1.5)))
        tips.line(axes, m, style.positive(old), "error at the start", "m =")
        labels.append(("error at the start", _last(old), style.MUTED))
    if guaranteed is not None:
        name, upper = guaranteed
        known = np.isfinite(upper)
        axes.plot(m[known], upper[known], color=_GUARANTEED, linewidth=1.2, marker="v", markersize=4, zorder=3)
        tips.line(axes, m, upper, name, "m =")
        labels.append((name, _last(upper), _GUARANTEED))
    if predicted is not None:
        axes.plot(predicted[0], np.maximum(predicted[1], floor), color=_PREDICTED, linewidth=1.1, zorder=6)
        tips.line(axes, predicted[0], np.maximum(predicted[1], floor), "predicted error", "m =", predicted[1])
        labels.append(("predicted error", _last(predicted[1]), _PREDICTED))
    _draw_error(axes, m, error, measured.error.std if kind == "classes" else None, floor)
    labels.append(("measured error", _last(error), style.INK))
    # What lies below the axis is labeled at its end.
    style.label_ends(axes, [(text, max(last, floor), color) for text, last, color in labels], 8.0)
    axes.set_ylabel("error")


def _error(task: TaskRecord, kind: str) -> np.ndarray:
    return task.error.two_class if kind == "two_class" else task.error.mean


def _curves(measured: TaskRecord, kind: str, chosen: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Every bound, or those that were chosen, that the panel of this kind may show."""
    return {
        key: bound(certificate, kind)
        for key, certificate in measured.certificates.items()
        if not (key == "exact_joint" and kind == "two_class")  # two classes: the same as exact_cantelli
        and (chosen is None or key in chosen)
    }


def _predicted(task: TaskRecord, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Shots and predicted errors: of all classes past the measured shots, of two-class subtasks at those alone."""
    found = task.predicted
    if found is None:
        return None
    m, error = (found.curve_shots, found.curve) if kind == "classes" else (task.shots, found.two_class)
    known = np.isfinite(error) & (m >= task.shots.min())
    m, error = m[known].astype(float), np.maximum(error[known], 1e-12)
    if not m.size:
        return None
    end = min(_BEYOND * task.shots.max(), m.max())
    inside = m < end
    last = np.exp(np.interp(np.log(end), np.log(m), np.log(error)))
    return np.append(m[inside], end), np.append(error[inside], last)


def _guaranteed(task: TaskRecord, kind: str) -> tuple[str, np.ndarray] | None:
    """The guarantee's name and values, nan where there is none; it is of all classes together."""
    found = task.guarantee
    if found is None or kind != "classes" or not np.isfinite(found.upper).any():
        return None
    return f"{found.confidence:.0%} guarantee", found.upper


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
    tips.line(axes, m, np.maximum(error, floor), "measured error", "m =", error, std)


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
        tips.points(axes, [m.max() / 1.2], [_last(shown)], [f"{_REMARKS[key]}: {_last(values):.3g}"])
        return _REMARKS[key], _last(shown), color
    dashed = not certificate.is_certificate
    if not dashed:
        axes.plot(m, shown, color=color, linewidth=0.9, linestyle=(0, (1, 1.2)))
    solid = np.where(certificate.valid | dashed, shown, np.nan)
    axes.plot(m, solid, color=color, linewidth=1.2 if dashed else 1.6, linestyle=(0, (4, 2)) if dashed else "-")
    tips.line(axes, m, shown, label(key), "m =", values)
    clipped = values >= 1
    axes.plot(m[clipped], shown[clipped], "^", color=color, markerfacecolor="white", markersize=4, clip_on=False)
    return _REMARKS.get(key, label(key)), _last(shown), color


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def _list(m: np.ndarray, values: np.ndarray) -> str:
    ends = [i for i in (0, len(m) - 1) if np.isfinite(values[i])]
    return ", ".join(f"{values[i]:.3g} at m = {m[i]:g}" for i in ends) or "n/a"
