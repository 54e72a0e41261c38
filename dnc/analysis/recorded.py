"""What a result file holds of a `TaskAnalysis`: everything at the analysis's own shots."""

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dnc.analysis.pair_views import pair_views
from dnc.analysis.progress import stage
from dnc.certificates import Certificate, available, two_class
from dnc.certificates.bounds import NEEDS_QUERIES
from dnc.certificates.margin import margin_terms
from dnc.few_shot.curve import TARGETS, shots_needed
from dnc.few_shot.guarantee import MIN_BLOCKS
from dnc.few_shot.measured import FewShotError
from dnc.few_shot.predict import PredictedError
from dnc.geometry.pairs import mean_over_pairs
from dnc.record import (
    CertificateRecord,
    ErrorRecord,
    GuaranteeRecord,
    HardSample,
    IntervalRecord,
    PredictedRecord,
    TaskRecord,
)

if TYPE_CHECKING:
    from dnc.analysis.task import TaskAnalysis

_HARD = 12  # samples that a record names


def task_record(task: "TaskAnalysis", title: str) -> TaskRecord:
    """The task's entry of a result file. `title` names its stages."""
    with stage(title, "geometry"):
        jax.block_until_ready(task.geometry)
        split, collapse = task.decomposition, task.neural_collapse
    with stage(title, "measured error"):
        error = task.few_shot_error()
    with stage(title, "certificates"):
        names = [name for name in available(task.geometry) if name != NEEDS_QUERIES]
        certificates = {name: certificate_record(task.certificate(name)) for name in names}
    missing = None if task.has_computed(NEEDS_QUERIES) else task.without_queries
    predicted, hardest = None, ()
    if missing is None:
        with stage(title, "predicted error"):
            every = task.every_sample
            certificates[NEEDS_QUERIES] = certificate_record(every.conditional)
            predicted, hardest = _predicted(task, every.predicted), _hardest(task)
    with stage(title, "pairs to look at") if task.queries else contextlib.nullcontext():
        views = pair_views(task) if task.queries else ()
    with stage(title, "guarantee") if task.guarantees else contextlib.nullcontext():
        guarantee = _guarantee(task) if task.guarantees else None
    with stage(title, "intervals") if task.replicates else contextlib.nullcontext():
        intervals = task.intervals
    return TaskRecord(
        classes=task.classes,
        cdnv=_numbers(task.cdnv),
        directional_cdnv=_numbers(task.directional_cdnv),
        mean_cdnv=float(mean_over_pairs(task.cdnv)),
        mean_directional_cdnv=float(mean_over_pairs(task.directional_cdnv)),
        shots=np.asarray(task.shots),
        repeats=task.repeats,
        error=error_record(error),
        certificates=certificates,
        counts=task.counts,
        overlap=margin_terms(task.geometry).overlap,
        missing={}
        if missing is None
        else {
            NEEDS_QUERIES: f"{missing}; certificate({NEEDS_QUERIES!r}) computes it",
            "predicted": f"{missing}; predicted_error() computes it",
        },
        corrected=_corrected_means(task),
        neural_collapse={name: float(value) for name, value in dataclasses.asdict(collapse).items()},
        intervals={
            name: IntervalRecord(_numbers(interval.low), _numbers(interval.high))
            for name, interval in intervals.items()
        },
        decomposition={field.name: np.asarray(getattr(split, field.name)) for field in dataclasses.fields(split)},
        predicted=predicted,
        guarantee=guarantee,
        hardest=hardest,
        hardest_shots=task.hard_shots if hardest else None,
        left_out=task.left_out,
        views=views,
    )


def error_record(error: FewShotError) -> ErrorRecord:
    """Measured few-shot error, as a result file holds it."""
    between = mean_over_pairs(error.per_pair)
    return ErrorRecord(*(_numbers(values) for values in (error.mean, error.std, error.per_class, between)))


def certificate_record(bounds: Certificate) -> CertificateRecord:
    """A certificate, as a result file holds it."""
    return CertificateRecord(
        bound=_numbers(bounds.bound),
        two_class=_numbers(mean_over_pairs(two_class(bounds))),
        per_class=_numbers(bounds.per_class),
        is_certificate=bounds.is_certificate,
        valid=np.asarray(bounds.valid),
    )


def _predicted(task: "TaskAnalysis", found: PredictedError) -> PredictedRecord:
    """From predictions at the task's shots, those of `GRID` that are not among them, and infinitely many."""
    m, errors = len(task.shots), _numbers(found.mean)
    grid = np.asarray(found.shots[:-1], int)
    order = np.argsort(grid)
    curve = errors[:-1][order]
    needed = {f"{target:g}": shots_needed(grid[order].astype(float), curve, target) for target in TARGETS}
    return PredictedRecord(
        mean=errors[:m],
        per_class=_numbers(found.per_class)[:m],
        two_class=_numbers(mean_over_pairs(found.per_pair)),
        curve_shots=grid[order],
        curve=curve,
        limit=float(errors.min()),
        shots_needed=needed,
    )


def _guarantee(task: "TaskAnalysis") -> GuaranteeRecord | None:
    """At the shots for which there are blocks enough; nan at the others."""
    blocks = task.counts.min() // (np.asarray(task.shots) + 1)
    possible = blocks >= MIN_BLOCKS
    if not possible.any():
        return None
    found = task.guarantee(np.asarray(task.shots)[possible].tolist())
    upper, lower = np.full((2, len(blocks)), math.nan)
    upper[possible], lower[possible] = found.upper, found.lower
    return GuaranteeRecord(found.confidence, upper, lower, blocks)


def _hardest(task: "TaskAnalysis") -> tuple[HardSample, ...]:
    found = task.hard_samples(task.hard_shots, _HARD)
    ids = [None] * len(found) if found.ids is None else found.ids
    columns = zip(found.rows, found.label, found.suggested, found.error, found.doubtful, ids, strict=True)
    return tuple(
        HardSample(int(row), own, taken, float(p), bool(doubt), name) for row, own, taken, p, doubt, name in columns
    )


def _corrected_means(task: "TaskAnalysis") -> dict[str, float]:
    if task.corrected is None:
        return {}
    values = {name: np.asarray(getattr(task.corrected, name)) for name in ("cdnv", "directional_cdnv")}
    decided = np.isfinite(values["cdnv"])
    means = {name: float(value[decided].mean()) if decided.any() else math.nan for name, value in values.items()}
    return means | {"undecided": 1 - float(decided.sum()) / (task.num_classes * (task.num_classes - 1))}


def _numbers(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)
