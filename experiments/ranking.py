"""How well scores rank candidates: weighted tau, regret of the first choice, and intervals that heed their networks.

A measured candidate has `data`, `network` and `name`, `targets` (name -> error), and for each number n of samples per
class `scores[n]` (name -> score, the higher the better, or one for each m) and `seconds[n]`; `labels_digest` is the
same for all candidates of a data set. `experiments.transferability` measures them.

For each score and target: Kendall's tau of scores and accuracies, weighted so that the ranks at the top count most
(Vigna 2015, hyperbolic weights, the mean of both rankings), and the regret, the error of the candidate with the highest
score (of equals, their mean) less the lowest error. Intervals are 2.5% and 97.5% percentiles of a bootstrap over
networks, since candidates of one network are not independent. The same draws serve all scores, so that differences from
the reference are paired.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import app
from matplotlib.figure import Figure
from scipy.stats import weightedtau

from dnc.report import style
from experiments import common

RULES = ("nearest center", "logistic")  # targets at m shots: "nearest center, m = 5"
LINEAR = "linear probe"
REFERENCE = "predicted error"  # of the nearest center
OVERALL = "all data sets"
_WORST = -1e31  # where there is no score

Rows = dict[tuple[str, ...], np.ndarray]  # (data set, samples per class, ...) -> a value for each draw of networks


def evaluate(measured: Sequence[Mapping[str, Any]], draws: int) -> dict[str, Any]:
    """Tau and regret of every score, error of the predicted error, and seconds, as lists of rows."""
    networks = sorted({one["network"] for one in measured})
    chance = np.full(len(networks), 1 / len(networks))
    times = np.random.default_rng(0).multinomial(len(networks), chance, size=draws)
    times = np.vstack([np.ones_like(times[:1]), times])  # the first draw is all candidates, once each
    ranking, prediction, seconds = {}, {}, {}
    for data in dict.fromkeys(one["data"] for one in measured):
        candidates = [one for one in measured if one["data"] == data]
        if len({one["labels_digest"] for one in candidates}) > 1:
            raise app.UsageError(f"the candidates of {data} do not have the same labels in the same order")
        repeated = times[:, [networks.index(one["network"]) for one in candidates]]
        chosen = [np.repeat(np.arange(len(candidates)), row) for row in repeated]
        for n, scores in candidates[0]["scores"].items():
            for name in scores:
                seconds[data, n, name] = np.array([np.median([one["seconds"][n][name] for one in candidates])])
            for target in candidates[0]["targets"]:
                error = np.array([one["targets"][target] for one in candidates])
                for name in scores:
                    values = np.array([_value(one["scores"][n][name], target) for one in candidates])
                    ranking[data, n, name, target] = np.array([tau_and_regret(values[c], error[c]) for c in chosen])
                    if name == REFERENCE and target.startswith(RULES[0]):
                        gap = np.abs(-values - error)
                        prediction[data, n, target] = np.array([gap[c].mean() if len(c) else np.nan for c in chosen])
    ranking, prediction, seconds = (_with_overall(rows) for rows in (ranking, prediction, seconds))
    interval = functools.partial(_interval, several=len(networks) > 1)
    return {
        "candidates": len(measured),
        "networks": networks,
        "ranking": [
            {"data": data, "n": n, "score": name, "target": target}
            | {key: interval(values[:, i]) for i, key in enumerate(("tau", "regret"))}
            | {
                f"{key}_less_reference": interval((values - ranking[data, n, REFERENCE, target])[:, i])
                for i, key in enumerate(("tau", "regret"))
            }
            for (data, n, name, target), values in ranking.items()
        ],
        "prediction": [
            {"data": data, "n": n, "target": target, "error": interval(values)}
            for (data, n, target), values in prediction.items()
        ],
        "seconds": [
            {"data": data, "n": n, "score": name, "seconds": values[0]} for (data, n, name), values in seconds.items()
        ],
    }


def _value(entry: float | Mapping[str, float | None] | None, target: str) -> float:
    """A score for a target: of its m, or of the largest for the linear probe. Without a value the worst."""
    if isinstance(entry, Mapping):
        _, found, m = target.partition(", m = ")
        entry = entry[m] if found else entry[max(entry, key=int)]
    return _WORST if entry is None else entry


def tau_and_regret(values: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """nan for fewer than two candidates, and tau of equal scores."""
    if len(values) < 2:
        return np.nan, np.nan
    tau = np.asarray(weightedtau(values, -error))[0] if np.ptp(values) > 0 and np.ptp(error) > 0 else np.nan
    return float(tau), float(error[values == values.max()].mean() - error.min())


def _with_overall(rows: Rows) -> Rows:
    """And the means over data sets of what all of them have, where there are several."""
    sets = dict.fromkeys(key[0] for key in rows)
    common_keys = [
        rest for rest in dict.fromkeys(key[1:] for key in rows) if all((data, *rest) in rows for data in sets)
    ]
    overall = {}
    for rest in common_keys if len(sets) > 1 else []:
        stack = np.stack([rows[data, *rest] for data in sets])
        counts = np.isfinite(stack).sum(axis=0)
        overall[OVERALL, *rest] = np.where(counts > 0, np.nansum(stack, axis=0) / np.maximum(counts, 1), np.nan)
    return overall | rows


def _interval(values: np.ndarray, several: bool) -> list[float]:
    """The first value, and the percentiles of the others; nan for those of a single network."""
    others = values[1:][np.isfinite(values[1:])]
    return [values[0], *(np.quantile(others, (0.025, 0.975)) if several and len(others) else (np.nan, np.nan))]


def tables(record: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{record['candidates']} candidates of {len(record['networks'])} networks. {record['machine']}, "
        f"{record['date']}. In brackets: 95% bootstrap over networks.",
    ]
    seconds = {(row["data"], row["n"], row["score"]): row["seconds"] for row in record["seconds"]}
    for measure, title in (("tau", "Weighted Kendall tau"), ("regret", "Regret of the first choice")):
        for data, n in dict.fromkeys((row["data"], row["n"]) for row in record["ranking"]):
            rows = [row for row in record["ranking"] if (row["data"], row["n"]) == (data, n)]
            targets = list(dict.fromkeys(row["target"] for row in rows))
            cells = {(row["score"], row["target"]): _cell(row[measure]) for row in rows}
            lines += ["", f"{title}, {data}, samples per class: {n}", ""]
            lines += common.table(
                ["score", *targets, "seconds"],
                (
                    [name, *(cells[name, target] for target in targets), f"{seconds[data, n, name]:.2g}"]
                    for name in dict.fromkeys(row["score"] for row in rows)
                ),
            )
    lines += ["", "Predicted less measured error of the nearest center, mean absolute value over candidates", ""]
    rows = {}
    for row in record["prediction"]:
        rows.setdefault((row["data"], row["n"]), {})[row["target"]] = _cell(row["error"])
    targets = list(dict.fromkeys(row["target"] for row in record["prediction"]))
    head = ["data", "samples per class", *(target.rpartition(", ")[2] for target in targets)]
    return lines + common.table(
        head, ([*key, *(row.get(target, "") for target in targets)] for key, row in rows.items())
    )


def _cell(interval: Sequence[float]) -> str:
    value, low, high = interval
    if not np.isfinite(value):
        return ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) else f"{value:.3f}"


def figure(record: Mapping[str, Any]) -> str:
    """Tau of every score by samples per class, for one target of each kind: over all data sets, or the only one."""
    ranking = [row for row in record["ranking"] if row["data"] == record["ranking"][0]["data"]]
    names, sizes, targets = (list(dict.fromkeys(row[key] for row in ranking)) for key in ("score", "n", "target"))
    shown = [[target for target in targets if target.startswith(rule)][:2][-1] for rule in (*RULES, LINEAR)]
    with style.theme():
        drawing = Figure(figsize=(2.6 + 2.2 * len(sizes), 0.8 + 0.28 * len(names)), layout="constrained")
        for axes, n in zip(np.ravel(drawing.subplots(1, len(sizes), sharey=True)), sizes, strict=True):
            for i, target in enumerate(shown):
                found = {row["score"]: row["tau"] for row in ranking if (row["n"], row["target"]) == (n, target)}
                value, low, high = np.array([found[name] for name in names], float).T
                height = np.arange(len(names)) + 0.22 * (i - 1)
                color = style.TASK_COLORS[i]
                axes.hlines(height, low, high, color=color, linewidth=1, alpha=0.6)
                axes.plot(value, height, "o", color=color, markersize=3.5, label=target)
            axes.axvline(0, color=style.FAINT, linewidth=0.8, zorder=0)
            axes.set(xlim=(-1, 1.02), xlabel="weighted tau", title=f"samples per class: {n}")
            axes.set_yticks(range(len(names)), names)
        drawing.axes[0].invert_yaxis()
        drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        return style.render(drawing, "transferability", "Weighted tau of every score").svg
