"""What a result file holds of one labeling; `dnc.record` has the whole."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dnc.jsonable import array, number, numbers, plain, whole
from dnc.types import Bool, Float, Int

RANKS = ("hardest", "median", "easiest")
_FEW_SAMPLES = 1.2  # a bias of the sample's size, as a factor, from which on a measure carries a warning


@dataclass(frozen=True)
class CertificateRecord:
    """One bound at every number of shots; where `is_certificate` is false, an order of magnitude or a limit."""

    bound: Float[np.ndarray, " m"]  # mean over classes
    two_class: Float[np.ndarray, " m"]  # mean over two-class subtasks
    per_class: Float[np.ndarray, "m k"]
    is_certificate: bool
    valid: Bool[np.ndarray, " m"]  # the number of shots lies within the theorem's assumptions


@dataclass(frozen=True)
class ErrorRecord:
    """Measured few-shot error: mean and standard deviation over draws, and the mean over two-class subtasks."""

    mean: Float[np.ndarray, " m"]
    std: Float[np.ndarray, " m"]
    per_class: Float[np.ndarray, "m k"]
    two_class: Float[np.ndarray, " m"]


@dataclass(frozen=True)
class IntervalRecord:
    """A 95% confidence interval, for the population, of a number, or of one at every number of shots."""

    low: Float[np.ndarray, "*shape"]
    high: Float[np.ndarray, "*shape"]


@dataclass(frozen=True)
class PredictedRecord:
    """Predicted few-shot error at the task's shots, and of all classes along a longer `curve`; see `PredictedError`."""

    mean: Float[np.ndarray, " m"]
    per_class: Float[np.ndarray, "m k"]
    two_class: Float[np.ndarray, " m"]
    curve_shots: Int[np.ndarray, " g"]
    curve: Float[np.ndarray, " g"]
    limit: float  # the lowest of any number of shots, infinitely many included
    shots_needed: dict[str, float]  # error, as text -> shots of each class that reach it; inf where none do


@dataclass(frozen=True)
class GuaranteeRecord:
    """With this confidence the error on new data is at most `upper`; nan where there are too few blocks."""

    confidence: float
    upper: Float[np.ndarray, " m"]
    lower: Float[np.ndarray, " m"]
    blocks: Int[np.ndarray, " m"]


@dataclass(frozen=True)
class HardSample:
    """A sample that is probably classified wrong from `shots` shots: of class `label`, taken for `suggested`."""

    row: int
    label: str
    suggested: str
    error: float  # P(error | sample)
    doubtful: bool  # far more likely under the suggested class: the label may be wrong
    id: str | None = None


@dataclass(frozen=True)
class PairSide:
    """A few hundred, or fewer, of a class's `count` samples, in the plane of `dnc.geometry.decision_plane`."""

    name: str
    count: int
    points: Float[np.ndarray, "n 2"]
    rows: Int[np.ndarray, " n"]
    ids: tuple[str, ...] | None = None  # their last characters


@dataclass(frozen=True)
class PairView:
    """Two classes on their decision axis: the `rank` ("hardest", "median" or "easiest") pair of a labeling.

    directional_cdnv: the mean of the two orders. error: of the nearest of the two means, mean of the two classes, of up
    to 5,000 samples of each.
    """

    rank: str
    first: PairSide  # its mean at (-1, 0)
    second: PairSide  # its mean at (1, 0)
    cdnv: float
    directional_cdnv: float
    error: float


@dataclass(frozen=True)
class TaskRecord:
    """One labeling. Matrices [k, k] are over ordered pairs of classes, with nan on the diagonal."""

    classes: tuple[str, ...]
    cdnv: Float[np.ndarray, "k k"]
    directional_cdnv: Float[np.ndarray, "k k"]
    mean_cdnv: float
    mean_directional_cdnv: float
    shots: Int[np.ndarray, " m"]
    repeats: int | None
    error: ErrorRecord
    certificates: dict[str, CertificateRecord]
    counts: np.ndarray | None = None  # [k]
    overlap: str | None = None  # what certificates took for tr(Sigma_i Sigma_j), see `dnc.geometry.pairs.MarginTerms`
    missing: dict[str, str] = field(default_factory=dict)  # certificates that were left out, and why
    corrected: dict[str, float] = field(default_factory=dict)  # mean cdnv and directional_cdnv for the population, over
    # the pairs that can be told apart; `undecided`: the share of the others
    neural_collapse: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, IntervalRecord] = field(default_factory=dict)  # of means over pairs and of bounds, by name
    decomposition: dict[str, np.ndarray] = field(default_factory=dict)  # see `dnc.geometry.decomposition`
    predicted: PredictedRecord | None = None
    guarantee: GuaranteeRecord | None = None
    hardest: tuple[HardSample, ...] = ()  # the hardest first
    hardest_shots: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)  # classes that were left out as too small, and their samples
    views: tuple[PairView, ...] = ()  # of three pairs or fewer, the hardest first

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the numbers are used: too few samples, looser certificates, missing ones."""
        found = []
        named = {"CDNV": ("cdnv", self.mean_cdnv), "directional CDNV": ("directional_cdnv", self.mean_directional_cdnv)}
        better = {title: (value, self.corrected.get(key, math.nan)) for title, (key, value) in named.items()}
        off = [
            f"{title} {value:.3g} of the sample is {corrected:.3g} once corrected"
            for title, (value, corrected) in better.items()
            if corrected > 0 and value < math.inf and not 1 / _FEW_SAMPLES < value / corrected < _FEW_SAMPLES
        ]
        if undecided := self.corrected.get("undecided"):
            found.append(f"these samples cannot tell the class means of {undecided:.0%} of the pairs apart")
        if off:
            smallest = "" if self.counts is None else f", {self.counts.min():g} in the smallest class"
            found.append(f"few samples for the dimension{smallest}: {', '.join(off)}")
        if self.left_out:
            shown = ", ".join(f"{name} ({count})" for name, count in list(self.left_out.items())[:20])
            more = f", and {len(self.left_out) - 20} more" if len(self.left_out) > 20 else ""
            found.append(f"{len(self.left_out)} classes with too few samples are left out: {shown}{more}")
        if self.overlap not in (None, "exact"):
            found.append(f"certificates use an upper bound of tr(Sigma_i Sigma_j): {self.overlap}")
        return (*found, *(f"{name} is left out: {reason}" for name, reason in self.missing.items()))

    def to_json(self) -> dict[str, Any]:
        """The task's entry of a result file."""
        return {
            "classes": list(self.classes),
            "counts": plain(self.counts),
            "overlap": self.overlap,
            "missing": self.missing,
            "corrected": plain(self.corrected),
            "warnings": list(self.warnings),
            "cdnv": plain(self.cdnv),
            "directional_cdnv": plain(self.directional_cdnv),
            "summary": plain({"cdnv": self.mean_cdnv, "directional_cdnv": self.mean_directional_cdnv}),
            "shots": plain(self.shots),
            "repeats": self.repeats,
            "error": plain(asdict(self.error)),
            "certificates": plain({name: asdict(value) for name, value in self.certificates.items()}),
            "neural_collapse": plain(self.neural_collapse),
            "intervals": plain({name: asdict(value) for name, value in self.intervals.items()}),
            "decomposition": plain(self.decomposition),
            "predicted": None if self.predicted is None else plain(asdict(self.predicted)),
            "guarantee": None if self.guarantee is None else plain(asdict(self.guarantee)),
            "hardest": plain([asdict(sample) for sample in self.hardest]),
            "hardest_shots": self.hardest_shots,
            "left_out": self.left_out,
            "views": plain([asdict(view) for view in self.views]),
        }

    @classmethod
    def from_json(cls, task: Mapping[str, Any]) -> "TaskRecord":
        """Raises KeyError, TypeError or ValueError where the entry does not follow the schema."""
        k, shots = len(task["classes"]), array(task.get("shots"), (None,))
        m = len(shots)
        summary, error = task.get("summary") or {}, task.get("error") or {}
        vector, by_class = (m,), (m, k)
        certificates = {
            name: CertificateRecord(
                bound=array(values.get("bound"), vector),
                two_class=array(values.get("two_class"), vector),
                per_class=array(values.get("per_class"), by_class),
                is_certificate=bool(values.get("is_certificate")),
                valid=np.nan_to_num(array(values.get("valid"), vector)).astype(bool),
            )
            for name, values in (task.get("certificates") or {}).items()
        }
        intervals = {
            name: IntervalRecord(*(np.array(values.get(side), float) for side in ("low", "high")))
            for name, values in (task.get("intervals") or {}).items()
        }
        return cls(
            classes=tuple(task["classes"]),
            cdnv=array(task.get("cdnv"), (k, k)),
            directional_cdnv=array(task.get("directional_cdnv"), (k, k)),
            mean_cdnv=number(summary.get("cdnv")),
            mean_directional_cdnv=number(summary.get("directional_cdnv")),
            shots=shots.astype(int),
            repeats=task.get("repeats"),
            error=ErrorRecord(
                mean=array(error.get("mean"), vector),
                std=array(error.get("std"), vector),
                per_class=array(error.get("per_class"), by_class),
                two_class=array(error.get("two_class"), vector),
            ),
            certificates=certificates,
            counts=whole(array(task.get("counts"), (k,))),
            overlap=task.get("overlap"),
            missing=dict(task.get("missing") or {}),
            corrected=numbers(task.get("corrected")),
            neural_collapse=numbers(task.get("neural_collapse")),
            intervals=intervals,
            decomposition={
                part: whole(np.array(values, float)) if part == "pairs" else np.array(values, float)
                for part, values in (task.get("decomposition") or {}).items()
            },
            predicted=_predicted(task.get("predicted"), m, k),
            guarantee=_guarantee(task.get("guarantee"), m),
            hardest=tuple(
                HardSample(**{**sample, "error": number(sample["error"])}) for sample in task.get("hardest") or ()
            ),
            hardest_shots=task.get("hardest_shots"),
            left_out=dict(task.get("left_out") or {}),
            views=tuple(_view(view) for view in task.get("views") or ()),
        )


def _predicted(values: Mapping[str, Any] | None, m: int, k: int) -> PredictedRecord | None:
    if not values:
        return None
    grid = array(values.get("curve_shots"), (None,))
    return PredictedRecord(
        mean=array(values.get("mean"), (m,)),
        per_class=array(values.get("per_class"), (m, k)),
        two_class=array(values.get("two_class"), (m,)),
        curve_shots=grid.astype(int),
        curve=array(values.get("curve"), (len(grid),)),
        limit=number(values.get("limit")),
        shots_needed={
            error: math.inf if shots is None else float(shots) for error, shots in values["shots_needed"].items()
        },
    )


def _guarantee(values: Mapping[str, Any] | None, m: int) -> GuaranteeRecord | None:
    if not values:
        return None
    upper, lower, blocks = (array(values.get(name), (m,)) for name in ("upper", "lower", "blocks"))
    return GuaranteeRecord(number(values.get("confidence")), upper, lower, np.nan_to_num(blocks).astype(int))


def _view(values: Mapping[str, Any]) -> PairView:
    if values["rank"] not in RANKS:
        raise ValueError(f"rank is {values['rank']!r}: give one of {RANKS}")
    measured = (number(values.get(name)) for name in ("cdnv", "directional_cdnv", "error"))
    return PairView(values["rank"], _side(values["first"]), _side(values["second"]), *measured)


def _side(values: Mapping[str, Any]) -> PairSide:
    points = array(values.get("points") or None, (None, 2))
    known = np.isfinite(points[:, 0] + points[:, 1])
    rows, ids = array(values.get("rows") or None, (len(points),)), values.get("ids")
    if ids is not None and len(ids) != len(points):
        raise ValueError(f"{len(points)} points have {len(ids)} ids")
    return PairSide(
        name=values["name"],
        count=int(values.get("count") or len(points)),
        points=points[known],
        rows=np.nan_to_num(rows[known], nan=-1).astype(int),
        ids=None if ids is None else tuple(name for name, is_known in zip(ids, known, strict=True) if is_known),
    )
