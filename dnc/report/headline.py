"""The report's headline: one sentence that a newcomer understands and that the numbers bear."""

import math
from collections.abc import Sequence

import numpy as np

from dnc.report.run import Run
from dnc.report.summary import TaskRow, task_rows

_MOST_NAMED = 3  # tasks that the headline names


def headline(run: Run) -> str:
    """One sentence of measured facts, also where they contradict the claim; without training, medians over tasks."""
    rows = task_rows(run)
    if run.has_time:
        unit, times = run.times()
        elapsed = _plain(times[-1] - times[0])
        parts = [f"Over {elapsed} {unit}{'' if elapsed == '1' else 's'} {_fall(rows)}"]
    else:
        medians = f" (medians of {len(rows)} tasks)" if len(rows) > 1 else ""
        directional, classical = ([getattr(row, f"{f}_last") for row in rows] for f in ("directional", "cdnv"))
        parts = [f"Directional CDNV is {_median(directional)} where CDNV is {_median(classical)}{medians}"]
    accuracies = [row.accuracy[0] for row in rows if math.isfinite(row.accuracy[0][1])]
    shots = {m for m, _ in accuracies}
    if len(shots) == 1:
        m = shots.pop()
        word = "shot" if m == 1 else "shots"
        parts.append(f"{m} {word} per class classify {_percents([a for _, a in accuracies])} of the rest")
    return "; ".join(parts) + "."


def _fall(rows: Sequence[TaskRow]) -> str:
    """How far directional CDNV and CDNV fell, in a newcomer's words, and in how many tasks the former fell further.

    Tasks in which either has no value at one of the ends are named.
    """
    known = [row for row in rows if not math.isnan(row.directional_factor) and not math.isnan(row.cdnv_factor)]
    along, total = [row.directional_factor for row in known], [row.cdnv_factor for row in known]
    if not known:
        return "neither directional CDNV nor CDNV has a value to compare"
    subject = "within-class variance, relative to the distance between classes,"
    unknown = f" ({_some([row.task for row in rows if row not in known])} cannot be compared)" if rows != known else ""
    if len(known) == 1:
        return f"{subject} {_moved(along)} along the decision axis, and {_moved(total)} in total{unknown}"
    others = [row.task for row in known if row.directional_factor <= max(1, row.cdnv_factor)]
    count = len(known) - len(others)
    if not others:
        tasks = f"all {len(known)} tasks"
    elif count and len(others) <= _MOST_NAMED:
        tasks = f"{count} of {len(known)} tasks (not in {', '.join(others)})"
    else:
        tasks = f"{count or 'none'} of {len(known)} tasks"
    moved = [_moved(along), _moved(total)]
    if all(words.startswith("fell ") for words in moved):
        moved = [words.removeprefix("fell ") for words in moved]
    return (
        f"{subject} fell further along the decision axis than in total in {tasks}: {moved[0]} against {moved[1]}"
        f"{unknown}"
    )


def _some(tasks: Sequence[str]) -> str:
    return ", ".join(tasks) if len(tasks) <= _MOST_NAMED else f"{len(tasks)} more tasks"


def _moved(factors: Sequence[float]) -> str:
    low, high = min(factors), max(factors)
    if _plain(low) == _plain(high) == "1":
        return "stayed"
    if low >= 1:
        return f"fell {_range(list(factors), '×')}"
    if high < 1:
        return f"rose {_range([1 / factor for factor in factors], '×')}"
    return f"a {_plain(1 / low)}× rise to a {_plain(high)}× fall"


def _median(values: list[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return _plain(float(np.median(known))) if known else "n/a"


def _range(values: list[float], unit: str) -> str:
    low, high = f"{_plain(min(values))}{unit}", f"{_plain(max(values))}{unit}"
    return low if low == high else f"{low} to {high}"


def _plain(value: float) -> str:
    """Two significant digits, or all before the point, with commas: never an exponent that a person would not use."""
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if 10 <= abs(value) < 1e15 else f"{value:.2g}"


def _percents(shares: Sequence[float]) -> str:
    low, high = _percent(min(shares)), _percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _percent(share: float) -> str:
    """A whole number, but neither 0 nor 100 for a share that is not: then rounded toward the middle, to one digit."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return f"{math.floor(1000 * share) / 10:.1f}%"
    if rounded == "0" and share > 0:
        return f"{math.ceil(1000 * share) / 10:.1f}%"
    return f"{rounded}%"
