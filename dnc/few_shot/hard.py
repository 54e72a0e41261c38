"""Which samples are hard: the probability that the few-shot rule gets each one wrong, and what it is taken for."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.few_shot.predict import QueryErrors, predict_queries
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.shots import check_allocations, shots_by_class
from dnc.types import Bool, Float, Int

if TYPE_CHECKING:
    import pandas as pd

DOUBTFUL = 100  # times as likely under the suggested class as under its own: from there on a label may be wrong


@dataclasses.dataclass(frozen=True)
class HardSamples:
    """Samples in the order of their probable error, the hardest first; equal ones in that of distances to the means.

    Attributes:
      shots: of each class, of the rule that is asked.
      rows: numbers of the samples among the features.
      label, suggested: names of the sample's class and of the class that it is taken for most often.
      error: P(error | sample), over draws of the shots.
      doubtful: whether the sample is `DOUBTFUL` times as likely, or more, under the suggested class as under its own:
        the label may be wrong. Whatever the shots, but for the class that they suggest.
      ids: of the samples, where they are known.
    """

    shots: Any
    rows: Int[np.ndarray, " t"]
    label: tuple[str, ...]
    suggested: tuple[str, ...]
    error: Float[np.ndarray, " t"]
    doubtful: Bool[np.ndarray, " t"]
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to_pandas(self) -> "pd.DataFrame":
        """One row per sample."""
        import pandas as pd

        columns = {} if self.ids is None else {"id": list(self.ids)}
        columns |= {name: getattr(self, name) for name in ("rows", "label", "suggested", "error", "doubtful")}
        return pd.DataFrame(columns).rename(columns={"rows": "row"})


def hard_samples(
    geometry: PairGeometry,
    shots: Any,
    classes: Sequence[str],
    top: int | None,
    ids: Sequence[str] | None = None,
    errors: QueryErrors | None = None,
) -> HardSamples:
    """The `top` samples (None: all) that a rule of these shots gets wrong most often; `errors` where they are known.

    Raises ValueError for `top` below 1, for shots that are not one positive integer or one for each class, and for a
    geometry without `queries`.
    """
    if top is not None and top < 1:
        raise ValueError(f"top={top} must be at least 1")
    (size,) = check_allocations([shots], len(classes), classes)
    by_class = shots_by_class((size,), len(classes))[0]
    queries = geometry.queries
    errors = predict_queries(geometry, jnp.asarray(by_class, jnp.float32)) if errors is None else errors
    found = jax.tree.map(np.asarray, errors)
    assert queries is not None
    labels, error, rival = np.asarray(queries.labels), found.error, found.rival
    counted = np.flatnonzero(np.asarray(queries.counted))
    rows = counted[np.lexsort((-found.nearness[counted], -error[counted]))[:top]]
    return HardSamples(
        shots=size,
        rows=rows,
        label=tuple(str(classes[c]) for c in labels[rows]),
        suggested=tuple(str(classes[c]) for c in rival[rows]),
        error=np.asarray(error[rows], np.float64),
        doubtful=_log_likelihood_ratio(geometry, labels, found)[rows] >= math.log(DOUBTFUL),
        ids=None if ids is None else tuple(str(ids[row]) for row in rows),
    )


def _log_likelihood_ratio(
    geometry: PairGeometry, labels: Int[np.ndarray, " n"], found: QueryErrors
) -> Float[np.ndarray, " n"]:
    """Of class j = rival against the query's own, i, by where it lies along the axis between their means:

        (||x - mu_i||^2 - ||x - mu_j||^2) / (d_ij^2 (W_ij + W_ji)),    W the directional CDNV,

    for normal distributions along the axis, with the mean of both classes' variances. nan for equal means.
    """
    directional = np.asarray(geometry.directional_cdnv, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (directional + directional.T) * np.asarray(geometry.squared_distance, float)
        return (found.own_distance.astype(float) - found.rival_distance) / spread[labels, found.rival]
