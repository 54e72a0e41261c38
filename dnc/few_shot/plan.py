"""How many labels does a target need? From a pilot of a few labeled samples of each class.

plan = dnc.plan(features, labels, target_error=0.05)
plan.shots_needed                     # of each class, to reach the target; inf where no number does
plan.error, plan.low, plan.high       # at plan.shots: the curve and its interval
plan.limit                            # the lowest error that any number of shots is expected to reach
plan.allocate(budget=50)              # which classes 50 more labels should go to
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit, ndtri

from dnc.few_shot.curve import GRID, shots_needed
from dnc.few_shot.measured import few_shot_error
from dnc.few_shot.predict import predict
from dnc.geometry import validation
from dnc.geometry.blocks import shuffled_classes
from dnc.geometry.measure import pair_geometry
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.shots import check_shots
from dnc.types import Array, Float, Int

if TYPE_CHECKING:
    import pandas as pd

SHOTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
FEW = 5  # samples of a class below which a pilot is not to be trusted
_PARTS, _PART = 20, 0.75  # of the pilot, for intervals, and their share of it
_LEAST = 1e-4  # by which errors are told apart from 0 and 1
_MEASURED = 0.6  # of the smallest class: shots up to which the pilot measures the error well


@dataclasses.dataclass(frozen=True)
class Plan:
    """The few-shot curve that follows from a pilot.

    Attributes:
      classes, counts: of the pilot.
      shots: labeled samples of each class.
      error: measured where the pilot has enough samples, predicted beyond, the two joined.
      low, high: its interval at `confidence`, for each number of shots on its own.
      predicted, measured: what was joined; `measured` is nan beyond the pilot.
      per_class: predicted error of each class.
      limit, limit_low, limit_high: the lowest error of any number of shots, infinitely many included, and its interval.
      target_error, confidence: as they were asked for.
      shots_needed: the smallest number of shots of each class that reaches the target; inf where none does.
      shots_needed_low, shots_needed_high: the same for `low` and `high`.
      gain: how much one more label of a class, beyond those of the pilot, lowers the predicted error of all.
    """

    classes: tuple[str, ...]
    counts: Int[np.ndarray, " k"]
    shots: Int[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    predicted: Float[np.ndarray, " m"]
    measured: Float[np.ndarray, " m"]
    per_class: Float[np.ndarray, "m k"]
    limit: float
    limit_low: float
    limit_high: float
    target_error: float
    confidence: float
    shots_needed: float
    shots_needed_low: float
    shots_needed_high: float
    gain: Float[np.ndarray, " k"]
    geometry: PairGeometry = dataclasses.field(repr=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """When not to trust the plan."""
        found = []
        if (few := int(self.counts.min())) < FEW:
            smallest = self.classes[int(self.counts.argmin())]
            found.append(f"class {smallest!r} has {few} samples in the pilot: with fewer than {FEW} this is a guess")
        if self.target_error < self.limit_low:
            found.append(
                f"the target {self.target_error:g} lies below the error that no number of shots removes "
                f"({self.limit:.3g}, at least {self.limit_low:.3g}): a better encoder or classifier must come first"
            )
        elif self.target_error < self.limit_high:
            found.append(
                f"the target {self.target_error:g} may lie below the error that no number of shots removes: "
                f"{self.limit:.3g}, between {self.limit_low:.3g} and {self.limit_high:.3g}"
            )
        else:
            now = float(np.interp(math.log(few), np.log(self.shots), self.error))
            wide = float(np.interp(math.log(few), np.log(self.shots), self.high - self.low))
            if now > self.target_error and wide > now - self.target_error:
                found.append(
                    f"the interval ({wide:.2g} wide) is wider than what is still to be gained "
                    f"({now - self.target_error:.2g}): add samples to the pilot before you rely on it"
                )
        return tuple(found)

    def allocate(self, budget: int, step: int = 1) -> dict[str, int]:
        """Shots of every class after `budget` more labels than the pilot's, given out where they are predicted to help
        most, `step` labels at a time.

        Greedy: each time to the class whose further labels lower the predicted error of all most. Raises ValueError for
        a negative budget, or a step below 1.
        """
        if budget < 0 or step < 1:
            raise ValueError(f"budget={budget} must be at least 0 and step={step} at least 1")
        shots, left = self.counts.astype(np.int64), budget
        while left > 0:
            more = min(step, left)
            shots[int(np.argmax(_gains(self.geometry, shots, more)))] += more
            left -= more
        return dict(zip(self.classes, shots.tolist(), strict=True))

    def error_of(self, shots: Sequence[int] | dict[str, int]) -> float:
        """Predicted error for shots of every class, in the order of `classes` or by name."""
        values = [shots[name] for name in self.classes] if isinstance(shots, dict) else list(shots)
        if len(values) != len(self.classes) or min(values) < 1:
            raise ValueError(f"shots={shots!r} must give a positive number for each of {len(self.classes)} classes")
        return float(_errors(self.geometry, jnp.asarray([values], jnp.float32)).mean())

    def to_pandas(self) -> "pd.DataFrame":
        """One row per number of shots."""
        import pandas as pd

        names = ("shots", "error", "low", "high", "measured", "predicted")
        return pd.DataFrame({name: getattr(self, name) for name in names})

    def summary(self) -> str:
        """The curve as a plain-text table, what the target needs, and when not to trust it."""
        smallest, largest = int(self.counts.min()), int(self.counts.max())
        pilot = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
        lines = [f"pilot: {len(self.classes)} classes, {pilot} samples of each"]
        lines += [f"note: {warning}" for warning in self.warnings]
        lines.append(self.to_pandas().to_string(index=False, float_format="%.4f", na_rep=""))
        lines.append(f"limit: {self.limit:.4f} ({self.limit_low:.4f} to {self.limit_high:.4f})")
        found = [shown(m) for m in (self.shots_needed, self.shots_needed_low, self.shots_needed_high)]
        lines.append(
            f"shots of each class for an error of {self.target_error:g}: {found[0]} ({found[1]} to {found[2]})"
        )
        helping = [c for c in np.argsort(-self.gain) if self.gain[c] >= 5e-6]
        gains = ", ".join(f"class {self.classes[c]}: {self.gain[c]:.5f}" for c in helping[:5])
        more = ", ..." if len(helping) > 5 else ""
        lines.append(f"one more label lowers the error by: {gains}{more}" if gains else "no single label helps")
        return "\n".join(lines)


def plan(
    features: Any,
    labels: Any,
    *,
    target_error: float = 0.05,
    shots: Sequence[int] = SHOTS,
    confidence: float = 0.9,
    normalize: bool = False,
    class_names: Sequence[str] | None = None,
    repeats: int = 100,
    seed: int = 0,
) -> Plan:
    """The few-shot error to expect of more labels than a pilot has, and how many reach `target_error`.

    Up to 0.6 of the pilot's smallest class the error is measured; beyond, it is the prediction of
    `dnc.few_shot.predict`, moved on the logit scale to meet the last measured error, and less far the more shots.
    Intervals, on the same scale, come from predictions of random parts of the pilot: they say how far another pilot
    could lie.

    Args:
      features, labels: as `dnc.analyze` takes them, with a single labeling. The pilot: a *random* sample of what is to
        be classified, at least two of each class and better ten; classes may have different numbers.
      target_error: mean over classes of the nearest-center rule's error.
      shots: where the curve is wanted.
      confidence: of the intervals, two-sided.
      normalize: divide each row by its Euclidean norm first.
      class_names: names that integer labels index.
      repeats, seed: of the measured error's draws, and of the groups.

    Raises ValueError or TypeError, before anything is computed, for what `dnc.analyze` refuses, and for a target or
    confidence outside (0, 1).
    """
    for name, value in (("target_error", target_error), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} must lie between 0 and 1")
    sizes = np.unique(check_shots(shots))
    array = validation.as_features(features)
    codes, classes = validation.encode_labels(labels, class_names, "labels")
    validation.check_same_length(len(array), len(codes), "labels")
    validation.check_classes(codes, classes)
    validation.check_finite(array)
    array = validation.unit_rows(array) if normalize else array
    validation.check_resolution(array, codes, classes, "labels")
    x = jnp.asarray(_in_their_span(validation.standardize(array)[0]))
    y, counts = jnp.asarray(codes), np.bincount(codes)

    geometry = _geometry(x, y, jnp.ones(len(codes), jnp.float32), num_classes=len(classes))
    grid = np.unique(np.append(sizes, GRID)).astype(float)
    wanted = jnp.asarray(np.repeat(np.append(grid, math.inf)[:, None], len(classes), axis=1), jnp.float32)
    per_class = np.asarray(_errors(geometry, wanted), np.float64)
    predicted = _logit(per_class.mean(axis=1))
    half = ndtri((1 + confidence) / 2) * _deviation(x, y, wanted, seed)

    known = grid[grid <= max(1, _MEASURED * counts.min())].astype(int)  # 1 among them
    measured = few_shot_error(jax.random.key(seed), x, y, known.tolist(), repeats, len(classes)).mean
    joined = predicted.copy()
    joined[: len(known)] = _logit(np.asarray(measured, np.float64))
    moved = (joined - predicted)[len(known) - 1]
    joined[len(known) : -1] += moved * np.sqrt(known[-1] / grid[len(known) :])
    at = np.searchsorted(grid, sizes)
    return Plan(
        classes=tuple(classes),
        counts=counts,
        shots=sizes,
        error=expit(joined[at]),
        low=expit(joined - half)[at],
        high=expit(joined + half)[at],
        predicted=expit(predicted[at]),
        measured=np.where(at < len(known), expit(joined[at]), math.nan),
        per_class=per_class[at],
        limit=float(expit(joined.min())),
        limit_low=float(expit(joined - half).min()),
        limit_high=float(expit(joined[-1] + half[-1])),
        target_error=target_error,
        confidence=confidence,
        shots_needed=shots_needed(grid, expit(joined)[:-1], target_error),
        shots_needed_low=shots_needed(grid, expit(joined - half)[:-1], target_error),
        shots_needed_high=shots_needed(grid, expit(joined + half)[:-1], target_error),
        gain=_gains(geometry, counts, 1),
        geometry=geometry,
    )


def _in_their_span(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n r"]:
    """The same distances in at most n dimensions."""
    n, d = x.shape
    if n >= d:
        return x
    return np.asarray(np.linalg.qr(x.T.astype(np.float64), mode="r")).T.astype(np.float32)


def _deviation(
    x: Float[Array, "n d"], y: Int[Array, " n"], shots: Float[Array, "m k"], seed: int
) -> Float[np.ndarray, " m"]:
    """Standard error of the predicted curve on the logit scale, from predictions of parts of the pilot.

    A part has r of the n samples of each class, three quarters and at least two; its variance counts r / (n - r) times.
    inf where all classes have two samples, of which none can be left out.
    """
    labels, k = np.asarray(y), shots.shape[1]
    counts = np.bincount(labels, minlength=k)
    kept = np.maximum(np.minimum(np.ceil(_PART * counts), counts - 1), 2).astype(int)
    left, curves = counts.sum() - kept.sum(), []
    if left == 0:
        return np.full(len(shots), math.inf)
    for key in jax.random.split(jax.random.key(seed), _PARTS):
        _, rank = shuffled_classes(key, y, jnp.asarray(counts))
        weights = jnp.asarray(np.asarray(rank) < kept[labels], jnp.float32)
        curves.append(_logit(np.asarray(_errors(_geometry(x, y, weights, num_classes=k), shots), np.float64).mean(1)))
    return np.std(curves, axis=0, ddof=1) * math.sqrt(kept.sum() / left)


def _gains(geometry: PairGeometry, shots: Int[np.ndarray, " k"], more: int) -> Float[np.ndarray, " k"]:
    """What `more` labels of each class alone lower the predicted error by: to first order in 1/m."""
    slope = np.asarray(_slope(geometry, jnp.asarray(1 / shots, jnp.float32)), np.float64)
    return slope * (1 / shots - 1 / (shots + more))


@jax.jit
def _slope(geometry: PairGeometry, share: Float[Array, " k"]) -> Float[Array, " k"]:
    """Derivative of the mean error by 1/m of each class."""
    return jax.grad(lambda s: jnp.mean(predict(geometry, 1 / s[None], few=False)[0]))(share)


@functools.partial(jax.jit, static_argnames="num_classes")
def _geometry(
    x: Float[Array, "n d"], y: Int[Array, " n"], weights: Float[Array, " n"], num_classes: int
) -> PairGeometry:
    return pair_geometry(x, y, num_classes, weights, overlap="exact", queries=True)


@jax.jit
def _errors(geometry: PairGeometry, shots: Float[Array, "m k"]) -> Float[Array, "m k"]:
    return predict(geometry, shots)[0]


def _logit(error: Any) -> Any:
    return logit(np.clip(error, _LEAST, 1 - _LEAST))


def shown(shots: float) -> str:
    """A number of shots in words."""
    return f"{shots:,.0f}" if math.isfinite(shots) else "no number"
