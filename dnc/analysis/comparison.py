"""Several encoders (or checkpoints) side by side: which transfers best, and which measure would have predicted it.

comparison = dnc.compare({"simclr": dnc.analyze(a, labels), "vicreg": dnc.analyze(b, labels)})
comparison.ranking()               # by measured few-shot error
comparison.rank_correlations()     # of every measure with that error
comparison.to_html("report")
"""

import dataclasses
import html
import itertools
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dnc import names
from dnc.analysis.analyze import Analysis
from dnc.few_shot.guarantee import guaranteed_difference
from dnc.jsonable import plain

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "dnc.comparison/1"
_NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Analyses of the same labelings, by name."""

    analyses: dict[str, Analysis]

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(names.distinct([*self.analyses]))}: {next(iter(self.analyses.values()))!r}>"

    def _repr_html_(self) -> str:
        """What notebooks show. It computes nothing."""
        shown = zip(names.distinct([*self.analyses]), self.analyses.values(), strict=True)
        rows = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(repr(one))}</td></tr>" for name, one in shown)
        return f"<p>Comparison</p><table>{''.join(rows)}</table>"

    def to_pandas(self) -> "pd.DataFrame":
        """One row per encoder, task and number of shots: measured error, every measure, every bound."""
        import pandas as pd

        frames = [analysis.to_pandas().assign(encoder=name) for name, analysis in self.analyses.items()]
        frame = pd.concat(frames, ignore_index=True)
        return frame.loc[:, ["encoder", *(column for column in frame if column != "encoder")]]

    def ranking(self) -> "pd.DataFrame":
        """Encoders from best to worst for each task and number of shots, by measured error.

        `error_low` and `error_high` bound its 95% confidence interval: the mean over draws of the support, plus or
        minus 1.96 standard errors. `behind` is the error less that of the best encoder, with its interval `behind_low`
        to `behind_high`: from the same draws (paired) where the encoders have the same samples in the same order.
        `place` is shared by encoders that the interval of this difference does not tell apart from the best one with
        the place: a tie. All intervals are of the draws, given the samples; see `guaranteed_differences` for new data.
        """
        import pandas as pd

        rows = []
        for task, shots, errors in self._errors():
            order = sorted(errors, key=lambda name: float(errors[name].mean()))
            places = _places([errors[name] for name in order], self._is_paired(task))
            for name, place in zip(order, places, strict=True):
                low, high = np.clip(_interval(errors[name]), 0, 1)
                behind = _difference(errors[name], errors[order[0]], self._is_paired(task))
                rows.append((task, shots, name, errors[name].mean(), low, high, *behind, place))
        columns = ["task", "shots", "encoder", "error", "error_low", "error_high"]
        return pd.DataFrame(rows, columns=[*columns, "behind", "behind_low", "behind_high", "place"])

    def predicted_ranking(self, shots: Sequence[Any]) -> "pd.DataFrame":
        """Encoders from best to worst by `predicted_error`, for any numbers of shots, also more than there are samples.

        `crossed` is True where the order differs from that at the largest measured number of shots.
        """
        import pandas as pd

        rows = []
        for task in next(iter(self.analyses.values())).tasks:
            found = {name: analysis.tasks[task].predicted_error(shots) for name, analysis in self.analyses.items()}
            measured = [(float(a.tasks[task].few_shot_error().mean[-1]), name) for name, a in self.analyses.items()]
            last = [name for _, name in sorted(measured)]
            for index, m in enumerate(next(iter(found.values())).shots):
                order = sorted(found, key=lambda name: float(found[name].mean[index]))
                rows += [
                    (task, m, name, float(found[name].mean[index]), place, order != last)
                    for place, name in enumerate(order, 1)
                ]
        return pd.DataFrame(rows, columns=["task", "shots", "encoder", "predicted", "place", "crossed"])

    def guaranteed_differences(self, shots: Sequence[Any] | None = None, confidence: float = 0.95) -> "pd.DataFrame":
        """For each task and number of shots, the error on new data of every encoder less that of the best measured one.

        An interval from the same blocks (see `dnc.few_shot.guarantee.guaranteed_difference`): with this confidence the
        difference on new data lies between `low` and `high`; where that holds 0, `tie` is True. Raises ValueError where
        encoders have different samples, or too few of them.
        """
        import pandas as pd

        rows = []
        for task, labeling in next(iter(self.analyses.values())).tasks.items():
            if not self._is_paired(task):
                raise ValueError(f"the encoders have different samples of {task}: give the same, in the same order")
            tasks = {name: analysis.tasks[task] for name, analysis in self.analyses.items()}
            best = min(tasks, key=lambda name: float(np.mean(np.asarray(tasks[name].few_shot_error().mean))))
            for name in tasks:
                if name != best:
                    found = guaranteed_difference(
                        tasks[name].features,
                        tasks[best].features,
                        labeling.labels,
                        labeling.num_classes,
                        labeling.shots if shots is None else shots,
                        confidence=confidence,
                        seed=labeling.seed,
                    )
                    values = zip(found.shots, found.difference, found.lower, found.upper, strict=True)
                    rows += [(task, m, name, best, d, low, high, low <= 0 <= high) for m, d, low, high in values]
        return pd.DataFrame(rows, columns=["task", "shots", "encoder", "than", "difference", "low", "high", "tie"])

    def _errors(self) -> Iterator[tuple[str, int, dict[str, np.ndarray]]]:
        """Task, number of shots, and errors of all repeats by encoder."""
        for task, labeling in next(iter(self.analyses.values())).tasks.items():
            found = {name: analysis.tasks[task].few_shot_error() for name, analysis in self.analyses.items()}
            for index, m in enumerate(labeling.shots):
                yield task, m, {name: np.asarray(error.per_repeat[:, index], float) for name, error in found.items()}

    def _is_paired(self, task: str) -> bool:
        """Whether all encoders were given the same draws of the same samples."""
        first, *rest = (analysis.tasks[task] for analysis in self.analyses.values())
        return all(
            (one.seed, one.repeats) == (first.seed, first.repeats) and np.array_equal(one.labels, first.labels)
            for one in rest
        )

    def rank_correlations(self) -> "pd.DataFrame":
        """Spearman's rho, over encoders, of each measure and bound with the measured error; rows are (task, shots).

        1: the measure puts the encoders in the order of their error. nan where a measure is the same for all, and
        everywhere with fewer than three encoders.
        """
        import pandas as pd

        frame = self.to_pandas()
        measures = [c for c in frame if c not in ("encoder", "task", "shots", "repeats", "error", "error_std")]
        rows, keys = [], []
        for key, group in frame.groupby(["task", "shots"], sort=False):
            error = group["error"].to_numpy(float)
            keys.append(key)
            rows.append([_spearman(group[measure].to_numpy(float), error) for measure in measures])
        frame = pd.DataFrame(rows, columns=measures)
        frame.index = pd.MultiIndex.from_tuples(keys, names=["task", "shots"])
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Names of the encoders' report folders, ranking and rank correlations, as plain values."""
        return {
            "schema": SCHEMA,
            "encoders": self.folders(),
            "ranking": plain(self.ranking().to_dict("records")),
            "rank_correlations": plain(self.rank_correlations().reset_index().to_dict("records")),
        }

    def folders(self) -> dict[str, str]:
        """A folder name for each encoder: letters, digits, dots, hyphens; in any case unlike others and the page's."""
        taken, folders = {"figures", "index.html", "comparison.json"}, {}
        for name in self.analyses:
            base = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._")[:80] or "encoder"
            numbered = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
            folders[name] = next(folder for folder in numbered if folder.lower() not in taken)
            taken.add(folders[name].lower())
        return folders

    def to_html(self, output: str | os.PathLike[str], provenance: Mapping[str, str] | None = None) -> pathlib.Path:
        """Write a page that compares the encoders, and each one's own report in a folder beside it.

        The folder is checked before anything is measured, and the numbers are written before the pages are made.
        """
        from dnc.report import folder
        from dnc.report.comparison import write_comparison

        output, folders = pathlib.Path(output), self.folders()
        folder.check(output)
        for inner in folders.values():
            folder.check(output / inner)
        tables, shown = self.to_dict(), dict(zip(self.analyses, names.distinct([*self.analyses]), strict=True))
        numbers = {"comparison.json": json.dumps(tables, allow_nan=False) + "\n"}
        folder.write(output, numbers)
        for name, inner in folders.items():
            folder.write(output / inner, self.analyses[name].record.files("analysis"))
        for name, inner in folders.items():
            self.analyses[name].to_html(output / inner, provenance)
        write_comparison(
            {shown[name]: analysis.record.shown() for name, analysis in self.analyses.items()},
            plain(presentable(self.ranking()).to_dict("records")),
            plain(presentable(self.rank_correlations().reset_index()).to_dict("records")),
            {shown[name]: inner for name, inner in folders.items()},
            output,
            numbers,
        )
        return output / "index.html"

    def summary(self) -> str:
        """The ranking as a plain-text table."""
        return presentable(self.ranking()).to_string(index=False, float_format="%.4f")


def compare(analyses: Mapping[str, Analysis]) -> Comparison:
    """Put analyses side by side, by name.

    Raises TypeError unless they come in a dict, and ValueError unless there are two, of the same labelings, classes and
    shots.
    """
    if not isinstance(analyses, Mapping):
        raise TypeError(f"analyses must be a dict, name -> analysis, not a {type(analyses).__name__}: name each one")
    if len(analyses) < 2:
        raise ValueError(f"a comparison needs at least two analyses, got {list(analyses)}")
    first_name, first = next((name, _layout(analysis)) for name, analysis in analyses.items())
    for name, analysis in analyses.items():
        for what, ours in _layout(analysis).items():
            if ours != first[what]:
                raise ValueError(f"{name} and {first_name} have different {what}: {ours} and {first[what]}")
    return Comparison(dict(analyses))


def presentable(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with names of encoders and tasks fit to be shown."""
    for column in table.columns.intersection(["encoder", "task"]):
        known = list(dict.fromkeys(table[column]))
        shown = dict(zip(known, names.distinct(known), strict=True))
        table = table.assign(**{column: [shown[name] for name in table[column]]})
    return table


def _layout(analysis: Analysis) -> dict[str, Any]:
    """What analyses must have in common to be compared."""
    return {"labelings": set(analysis.tasks)} | {
        what: {name: getattr(task, what) for name, task in analysis.tasks.items()} for what in ("classes", "shots")
    }


def _spearman(values: np.ndarray, errors: np.ndarray) -> float:
    from scipy.stats import spearmanr  # half a second that importing this module need not take

    known = np.isfinite(values) & np.isfinite(errors)
    if known.sum() < 3 or any(np.ptp(x[known]) == 0 for x in (values, errors)):
        return float("nan")
    return float(np.asarray(spearmanr(values[known], errors[known]))[0])


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95% interval of the mean over draws."""
    half = _NORMAL_95 * values.std() / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _difference(ours: np.ndarray, best: np.ndarray, paired: bool) -> tuple[float, float, float]:
    """Mean of ours - best and its 95% interval; of different draws, their variances add."""
    difference = float(ours.mean() - best.mean())
    if paired:
        return difference, *_interval(ours - best)
    half = _NORMAL_95 * math.sqrt(ours.var() / len(ours) + best.var() / len(best))
    return difference, difference - half, difference + half


def _places(errors: Sequence[np.ndarray], paired: bool) -> list[int]:
    """1 for the best and all that it is not told apart from, and so on; errors come sorted by mean."""
    places, best = [], 0
    for index, values in enumerate(errors):
        if _difference(values, errors[best], paired)[1] > 0:
            best = index
        places.append(best + 1)
    return places
