"""The numbers a reader wants first: the summary table, the hardest pairs, and the self-checks."""

import math
from dataclasses import dataclass

import numpy as np

from dnc.record import TaskRecord
from dnc.report.pairs import pair_key
from dnc.report.run import Run


@dataclass(frozen=True)
class TaskRow:
    """One line of the summary table; `first` values are nan without training."""

    task: str
    classes: int
    directional_first: float
    directional_last: float
    cdnv_first: float
    cdnv_last: float
    accuracy: tuple[tuple[int | None, float], tuple[int | None, float]]  # (shots, accuracy) nearest to 10 and to 100
    predicted: tuple[float, float]  # accuracy of exactly 10 and 100 shots where it was not measured; nan elsewhere
    certified: dict[str, int | None]  # two classes: the first m at which a certificate is below 1/2

    @property
    def directional_factor(self) -> float:
        return _ratio(self.directional_first, self.directional_last)

    @property
    def cdnv_factor(self) -> float:
        return _ratio(self.cdnv_first, self.cdnv_last)


@dataclass(frozen=True)
class FirstShots:
    """For one task and kind of problem, the first m at which each certificate is below chance; None if at no m."""

    task: str
    problem: str
    chance: float
    shots: dict[str, int | None]
    limit: float


@dataclass(frozen=True)
class Checks:
    """How often a measured number was compared with a bound on it, and how often it was above or had none."""

    certificates: int
    exceeded: list[str]
    cosines: int


@dataclass(frozen=True)
class HardPair:
    """Class `of` is hard to tell from class `against`: its variance along their axis is large for their distance."""

    of: str
    against: str
    directional_cdnv: float
    reverse: float
    cdnv: float
    key: str  # see `dnc.report.pairs.pair_key`


def task_rows(run: Run) -> list[TaskRow]:
    rows = []
    for name, task in run.last.tasks.items():
        before = run.first.tasks.get(name) if run.has_time else None
        rows.append(
            TaskRow(
                task=name,
                classes=task.num_classes,
                directional_first=before.mean_directional_cdnv if before else math.nan,
                directional_last=task.mean_directional_cdnv,
                cdnv_first=before.mean_cdnv if before else math.nan,
                cdnv_last=task.mean_cdnv,
                accuracy=(_accuracy(task, 10), _accuracy(task, 100)),
                predicted=(_predicted_accuracy(task, 10), _predicted_accuracy(task, 100)),
                certified=_informative(task, "two_class", 0.5),
            )
        )
    return rows


def first_shots(run: Run) -> list[FirstShots]:
    """Where every true certificate of the last step becomes informative; two-class subtasks first, then all classes."""
    rows = []
    for name, task in run.last.tasks.items():
        k = task.num_classes
        for problem in ("two_class", "classes") if k > 2 else ("two_class",):
            chance = 0.5 if problem == "two_class" else 1 - 1 / k
            limit = task.certificates.get("luthra2026_limit")
            values = np.empty(0) if limit is None else limit.two_class if problem == "two_class" else limit.bound
            title = "two-class subtasks" if problem == "two_class" and k > 2 else f"all {k} classes"
            rows.append(
                FirstShots(
                    name,
                    title,
                    chance,
                    _informative(task, problem, chance),
                    float(values[-1]) if values.size else math.nan,
                )
            )
    return sorted(rows, key=lambda row: row.problem != "two-class subtasks")


def checks(run: Run) -> Checks:
    """Compare every measured error with every certificate, at every step, task and shot count where it is valid."""
    compared, exceeded = 0, []
    for analysis in run.records:
        for name, task in analysis.tasks.items():
            for key, certificate in task.certificates.items():
                if not certificate.is_certificate:
                    continue
                for error, bound in (
                    (task.error.mean, certificate.bound),
                    (task.error.two_class, certificate.two_class),
                ):
                    is_given = any(np.isfinite(x).any() for x in (bound, certificate.bound, certificate.per_class))
                    usable = certificate.valid & np.isfinite(error) & is_given
                    compared += int(usable.sum())
                    exceeded += [
                        f"{name}, step {analysis.step}, {key}, m = {task.shots[i]:g}: "
                        f"error {error[i]:.3g} > {bound[i]:.3g}"
                        for i in np.flatnonzero(usable & ~(error <= bound + 1e-6))  # nan certifies nothing
                    ]
    return Checks(compared, exceeded, sum(pair.violations for a in run.records for pair in a.axes.values()))


def hardest_pairs(task: TaskRecord, most: int = 240) -> list[HardPair]:
    """The ordered pairs of largest directional CDNV: all those of 16 classes."""
    w, v = task.directional_cdnv, task.cdnv
    order = np.argsort(np.where(np.isfinite(w), -w, np.inf), axis=None, kind="stable")[:most]
    pairs = [divmod(int(flat), task.num_classes) for flat in order]
    return [
        HardPair(task.classes[i], task.classes[j], float(w[i, j]), float(w[j, i]), float(v[i, j]), pair_key(i, j))
        for i, j in pairs
        if np.isfinite(w[i, j])
    ]


@dataclass(frozen=True)
class LabelsNeeded:
    """Predicted shots of each class that reach an error: `shots[error]`, inf where none do.

    beyond: the errors for which that is more than the smallest class holds. limit: the error that no number removes.
    """

    task: str
    shots: dict[float, float]
    beyond: tuple[float, ...]
    limit: float
    chance: float


def labels_needed(run: Run) -> list[LabelsNeeded]:
    """Of every task of the last step that has a prediction."""
    rows = []
    for name, task in run.last.tasks.items():
        if task.predicted is None:
            continue
        shots = {float(error): number for error, number in task.predicted.shots_needed.items()}
        samples = math.inf if task.counts is None else task.counts.min()
        beyond = tuple(error for error, number in shots.items() if samples < number < math.inf)
        rows.append(LabelsNeeded(name, shots, beyond, task.predicted.limit, 1 - 1 / task.num_classes))
    return rows


@dataclass(frozen=True)
class SpectrumRow:
    """One label-free measure; `first` is nan without training."""

    measure: str
    meaning: str
    first: float
    last: float


MEASURES = {
    "rankme": ("RankMe", "directions in use, from the entropy of the singular values; at most the dimension"),
    "effective_rank": ("effective rank", "the same of the covariance's eigenvalues"),
    "participation_ratio": ("participation ratio", "(tr Σ)² / tr Σ²: directions that share the variance"),
    "alpha_req": ("α-ReQ", "decay exponent of the eigenvalues; near 1 is reported to transfer best"),
    "lidar": ("LiDAR", "directions that tell images apart whatever their augmentation"),
}


def spectrum(run: Run) -> list[SpectrumRow]:
    """Label-free measures of the last step, and where training was followed of the first."""
    before = run.first.spectrum if run.has_time else {}
    order = [*(name for name in MEASURES if name in run.last.spectrum), *(run.last.spectrum.keys() - MEASURES)]
    return [
        SpectrumRow(*MEASURES.get(name, (name, "")), before.get(name, math.nan), run.last.spectrum[name])
        for name in order
    ]


def provenance(run: Run) -> dict[str, str]:
    """What the numbers were made with, line by line."""
    tasks = run.last.tasks.values()
    shots = {", ".join(map(str, task.shots.tolist())) for task in tasks if task.shots.size}
    repeats = {f"{task.repeats}" for task in tasks if task.repeats is not None}
    lines = {
        **run.provenance,
        "shots per class": "; ".join(sorted(shots)),
        "repeats": " or ".join(sorted(repeats)) + " draws of the shots" if repeats else "",
        "seed": "" if run.last.seed is None else str(run.last.seed),
    }
    return {what: value for what, value in lines.items() if value}


def reasons(run: Run) -> list[str]:
    """Why numbers of the last step are n/a."""
    lines = []
    for name, task in run.last.tasks.items():
        if not np.isfinite(task.error.mean).any():
            lines.append(f"{name}: few-shot accuracy was not measured.")
        if not math.isfinite(task.mean_cdnv) or not math.isfinite(task.mean_directional_cdnv):
            lines.append(f"{name}: CDNV has no finite mean: two classes have one mean, or it was not measured.")
    return lines


def _informative(task: TaskRecord, problem: str, chance: float) -> dict[str, int | None]:
    """The first m at which each true certificate is valid and below chance."""
    first: dict[str, int | None] = {}
    for key, certificate in task.certificates.items():
        if certificate.is_certificate:
            values = certificate.two_class if problem == "two_class" else certificate.bound
            usable = task.shots[(values < chance) & certificate.valid]
            first[key] = int(usable.min()) if usable.size else None
    return first


def _ratio(first: float, last: float) -> float:
    """How many times the first is the last: inf for a last of 0, nan without one of both or a first above 0."""
    if not (math.isfinite(first) and math.isfinite(last) and first > 0):
        return math.nan
    return first / last if last > 0 else math.inf


def _accuracy(task: TaskRecord, wanted: int) -> tuple[int | None, float]:
    known = np.flatnonzero(np.isfinite(task.error.mean)) if task.shots.size else np.empty(0, int)
    if not known.size:
        return None, math.nan
    nearest = known[np.argmin(np.abs(np.log(task.shots[known] / wanted)))]
    return int(task.shots[nearest]), float(1 - task.error.mean[nearest])


def _predicted_accuracy(task: TaskRecord, wanted: int) -> float:
    found = task.predicted
    if found is None or np.isfinite(task.error.mean[task.shots == wanted]).any():
        return math.nan
    at = np.flatnonzero(found.curve_shots == wanted)
    return float(1 - found.curve[at[0]]) if at.size else math.nan
