"""How many labels does a target need? From a pilot of a few labeled samples of each class.

plan = dnc.plan(features, labels, target_error=0.05)
plan.shots_needed                     # of each class, to reach the target; inf where no number does
plan.error, plan.low, plan.high       # at plan.shots: the curve and its interval
plan.limit                            # the error that no number of shots removes
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit, stdtrit

from dnc.certificates.intervals import dealt
from dnc.few_shot.measured import few_shot_error
from dnc.few_shot.predict import predict
from dnc.geometry import validation
from dnc.geometry.measure import pair_geometry
from dnc.geometry.shots import check_shots
from dnc.types import Array, Float, Int

SHOTS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
FEW = 5  # samples of a class below which a pilot is not to be trusted
_GROUPS = 10  # of the jackknife
_LEAST = 1e-4  # errors are told apart from 0 and 1 by at least this


@dataclasses.dataclass(frozen=True)
class Plan:
    """The few-shot curve that a pilot foretells.

    Attributes:
      classes, counts: of the pilot.
      shots: labeled samples of each class.
      error: measured in the pilot where it has enough samples, predicted beyond, the two joined.
      low, high: its interval at `confidence`, pointwise.
      predicted, measured: what was joined; `measured` is nan beyond the pilot.
      per_class: predicted error of each class.
      limit, limit_low, limit_high: the same of infinitely many shots: the error that no number of shots removes.
      target_error, confidence: as asked for.
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
    gain: Float[np.ndarray, " k"]
    pilot: "_Pilot" = dataclasses.field(repr=False)
