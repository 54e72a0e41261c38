"""The page of a plan: the few-shot curve of a pilot, and what a target needs."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dnc.few_shot.plan import Plan, shown
from dnc.jsonable import plain
from dnc.names import clean, distinct
from dnc.report import folder, html, page, style, tips

SCHEMA = "dnc.plan/1"


def write_plan(plan: Plan, output: Path, name: str, allocation: Mapping[str, int] | None = None) -> Path:
    """Write `output`/index.html, plan.json and figures/; returns the page's path. The numbers are written first.

    allocation: shots of every class, from `Plan.allocate`. Raises FileExistsError where `output` holds other files.
    """
    output = Path(output)
    folder.check(output)
    numbers = {"plan.json": json.dumps(to_json(plan, allocation), allow_nan=False) + "\n"}
    folder.write(output, numbers)
    with style.theme():
        picture = draw(plan)
    classes = distinct(plan.classes)
    order = np.argsort(-plan.gain, kind="stable")[:20]
    rows = [
        {
            "name": classes[c],
            "count": int(plan.counts[c]),
            "gain": float(plan.gain[c]),
            "shots": None if allocation is None else allocation[plan.classes[c]],
        }
        for c in order
    ]
    text = page.render(
        "plan.html",
        [picture],
        title=_headline(plan),
        name=name,
        plan=plan,
        needed=[shown(m) for m in (plan.shots_needed, plan.shots_needed_low, plan.shots_needed_high)],
        warnings=[clean(warning) for warning in plan.warnings],
        figure=picture,
        rows=rows,
        left_out=len(classes) - len(rows),
        allocation=allocation,
        curve=list(zip(plan.shots, plan.error, plan.low, plan.high, plan.measured, plan.predicted, strict=True)),
    )
    contents = {**html.figure_files([picture]), "index.html": text}
    folder.write(output, contents)
    folder.keep_only(output, {*numbers, *contents})
    return output / "index.html"


def to_json(plan: Plan, allocation: Mapping[str, int] | None = None) -> dict[str, object]:
    """The plan as plain values; inf, no number of shots, as null."""
    names = (
        "classes counts shots error low high predicted measured per_class limit limit_low limit_high target_error "
        "confidence shots_needed shots_needed_low shots_needed_high gain warnings"
    )
    return plain({"schema": SCHEMA} | {key: getattr(plan, key) for key in names.split()} | {"allocation": allocation})


def draw(plan: Plan) -> style.Picture:
    """Measured points, the curve with its interval, the target and the limit."""
    figure, axes = style.panel((6.4, 3.8), "few-shot error", right=0.8, left=0.7)
    m, confidence = plan.shots, f"{plan.confidence:.0%}"
    lowest = (style.octaves(plan.low, np.array([plan.target_error, plan.limit_low]), least=3) or (-4, 0))[0]
    floor = 2.0 ** max(lowest, -12)
    style.plain_log_shots(axes, m)
    style.log2_axis(axes, (int(np.log2(floor)), 0), label=lambda exponent: style.fraction(2.0 ** round(exponent)))
    low, high = np.maximum(plan.low, floor), np.maximum(plan.high, floor)
    axes.fill_between(m, low, high, color=style.BLUE, alpha=0.15, linewidth=0)
    axes.plot(m, np.maximum(plan.error, floor), color=style.BLUE, linewidth=1.8)
    told = zip(m, plan.error, plan.low, plan.high, strict=True)
    texts = [
        f"expected error, m = {at:g}: {error:.3g} ({below:.3g} to {above:.3g})" for at, error, below, above in told
    ]
    tips.points(axes, m, np.maximum(plan.error, floor), texts)
    known = np.isfinite(plan.measured)
    axes.plot(m[known], np.maximum(plan.measured[known], floor), "o", color=style.INK, markersize=4, zorder=4)
    tips.line(axes, m[known], np.maximum(plan.measured[known], floor), "measured error", "m =", plan.measured[known])
    axes.axhline(plan.target_error, color=style.VERMILLION, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.axhline(max(plan.limit, floor), color=style.MUTED, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axes.axvline(float(plan.counts.min()), color=style.MUTED, linewidth=0.8)
    axes.annotate("pilot", (float(plan.counts.min()), 1), (3, -10), textcoords="offset points", color=style.MUTED)
    labels = [
        (f"expected, {confidence}", float(max(plan.error[-1], floor)), style.BLUE),
        ("target", plan.target_error, style.VERMILLION),
        ("no number of shots", max(plan.limit, floor), style.MUTED),
    ]
    style.label_ends(axes, labels, 8.0)
    axes.set_xlabel("labeled samples of each class")
    axes.set_ylabel("error")
    ends = f"{plan.error[0]:.3g} at m = {m[0]} to {plan.error[-1]:.3g} at m = {m[-1]}"
    alt = f"Few-shot error: {ends}; target {plan.target_error:g}; limit {plan.limit:.3g}"
    return style.render(figure, "plan", alt)


def _headline(plan: Plan) -> str:
    target = f"an error of {plan.target_error:.3g}"
    if not np.isfinite(plan.shots_needed) and np.isfinite(plan.shots_needed_low):
        return f"Whether any number of labels reaches {target} is open: {plan.limit:.3g} is predicted to remain."
    if not np.isfinite(plan.shots_needed):
        return f"No number of labels is predicted to reach {target}: {plan.limit:.3g} remains."
    if plan.shots_needed <= plan.counts.min():
        open_end = plan.shots_needed_high > plan.counts.min()
        reach = "are predicted to reach" if open_end else "already reach"
        doubt = (
            f", but it may take {shown(plan.shots_needed_high)}"
            if np.isfinite(plan.shots_needed_high)
            else (", but it may be that no number does")
        )
        return f"The pilot's {int(plan.counts.min())} labels of each class {reach} {target}{doubt if open_end else ''}."
    return f"{plan.shots_needed:,.0f} labels of each class are predicted to reach {target}."
