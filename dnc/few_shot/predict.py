"""The few-shot error in closed form: of every query, class and pair, for any number of shots, also beyond the samples.

Given the query x, the squared distances T_c = ||x - mu^_c||^2 to the centroids of m_c shots are independent of each
other, with known mean E_c, variance N_c and third cumulant K_c (see `dnc.few_shot.distances`). A nearest-center rule is
right where the query's own class i is nearest:

    P(right | x) = E_t [prod_{j != i} P(T_j > t)],   t distributed as T_i,

by Gauss-Hermite quadrature over t, each T_c taken as the variable with those cumulants (`dnc.few_shot.skewed`). Of two
classes alone, P(T_j <= T_i | x) is that of the margin T_j - T_i, whose cumulants are sums of both. With one, two or
three shots of each class, P(T_j > t) are shares of centroids of samples instead (`dnc.geometry.references`).

It estimates the error on new data, as the measured error does, without drawing anything: moments are corrected for the
number of samples n_c that they come from. With v_c, Sigma_c unbiased and the query left out of its own class,

    E_c = ||x - mu_c||^2 + v_c (1/m_c - 1/n_c),      b^T Sigma_c b - tr Sigma_c^2 / n_c in place of b^T Sigma_c b,

and the margins E_c - E_i over queries x of class i, whose variance is larger by 4 [tr Sigma_i^2 / (n_i - 1) +
tr(Sigma_i Sigma_c) / n_c], are drawn to their mean by sqrt(1 - that / variance).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.compiling import jit_quickly
from dnc.few_shot.distances import Classes, block_rows, compared, of_own, of_queries, own_class, queries_of, shared
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.pytree import array_dataclass
from dnc.geometry.queries import Pass, look
from dnc.geometry.query_geometry import QueryGeometry
from dnc.geometry.shots import check_allocations, check_shots, shots_by_class
from dnc.types import Array, Float, Int


@dataclasses.dataclass(frozen=True)
class PredictedError:
    """Predicted few-shot NCC error: what `FewShotError` measures, for the same rule and classes.

    Attributes:
      shots: of each prediction: a number for all classes, or one of each class.
      mean: mean over classes.
      per_class: P(error | x in class i).
      per_pair: P(centroid j at least as near as centroid i | x in class i), diagonal 0; of the first p shots (from
        `predicted_error`, of all).
    """

    shots: tuple[Any, ...]
    mean: Float[Array, " m"]
    per_class: Float[Array, "m k"]
    per_pair: Float[Array, "p k k"]


def predicted_error(
    geometry: PairGeometry, shots: Sequence[Any] | Mapping[str, int], classes: Sequence[str] | None = None
) -> PredictedError:
    """Predicted few-shot error for all shots, classes and pairs at once.

    An entry of `shots` is one number for all classes (inf: the limit) or a sequence of one for each. Compiled once for
    each shape of the queries and number of entries.

    `classes` names them, for shots given as a dict. Raises ValueError for shots below 1, and for a geometry without
    `queries` or with corrected moments.
    """
    k = geometry.counts.shape[0]
    if not isinstance(shots, Mapping) and not np.iterable(shots):
        check_shots(shots)  # which says what to write
    entries: list[Any] = [shots] if isinstance(shots, Mapping) else list(shots)
    unlimited = [isinstance(entry, float) and math.isinf(entry) for entry in entries]
    finite = check_allocations([1 if inf else entry for entry, inf in zip(entries, unlimited, strict=True)], k, classes)
    by_class = np.where(np.array(unlimited)[:, None], np.inf, shots_by_class(finite, k))
    per_class, per_pair = _predict(geometry, jnp.asarray(by_class, jnp.float32))
    sizes = tuple(math.inf if inf else size for size, inf in zip(finite, unlimited, strict=True))
    return PredictedError(sizes, jnp.mean(per_class, axis=1), per_class, per_pair)


def predict(
    geometry: PairGeometry, shots: Float[Array, "m k"], few: bool = True, pairs: int | None = None
) -> tuple[Float[Array, "m k"], Float[Array, "p k k"]]:
    """Predicted errors of classes, and of ordered pairs for the first `pairs` shots (None: all). Jittable.

    `shots` are of every class (inf: their limit). Without `few`, also one to three shots are predicted from cumulants
    alone, and the result has derivatives.
    """
    (found,) = look(queries_of(geometry), prediction_pass(shared(geometry), shots, few, pairs))
    return found


def prediction_pass(classes: Classes, shots: Float[Array, "m k"], few: bool = True, pairs: int | None = None) -> Pass:
    """The same as a pass over the queries."""
    (m, k), of_pairs = shots.shape, len(shots) if pairs is None else pairs

    @jax.checkpoint
    def step(total: tuple[Array, Array], block: QueryGeometry) -> tuple[tuple[Array, Array], None]:
        columns = compared(block)

        def at(total: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], None]:
            per_class, per_pair = total
            error, wrong = of_queries(columns, classes, shots[index], few, pairs=True)
            assert wrong is not None
            per_pair = per_pair.at[index, block.labels].add(block.weight[:, None] * wrong)
            return (per_class.at[index, block.labels].add(block.weight * error), per_pair), None

        def without_pairs(per_class: Array, index: Array) -> tuple[Array, None]:
            error, _ = of_queries(columns, classes, shots[index], few, pairs=False)
            return per_class.at[index, block.labels].add(block.weight * error), None

        (per_class, per_pair), _ = jax.lax.scan(at, total, jnp.arange(of_pairs))
        per_class, _ = jax.lax.scan(without_pairs, per_class, jnp.arange(of_pairs, m))
        return (per_class, per_pair), None

    def finish(total: tuple[Array, Array], _: None) -> tuple[Array, Array]:
        per_class, per_pair = total
        return jnp.clip(per_class, 0, 1), jnp.clip(per_pair, 0, 1)

    return Pass((jnp.zeros((m, k)), jnp.zeros((of_pairs, k, k))), step, finish, block_rows(k))


_predict = jit_quickly(predict, static_argnames=("few", "pairs"))


@array_dataclass
class QueryErrors:
    """What a rule of some shots of each class does with every query x, of class i.

    rival: the class j that it is most often nearer to than to its own; of rivals of probability 1, or where all have 0,
    the one of the largest nearness, (E_i - E_c) / std(T_c - T_i) from variances of many shots. These have an order also
    where probabilities round to 0 or 1.
    """

    error: Float[Array, " n"]  # P(error | x)
    rival: Int[Array, " n"]
    nearness: Float[Array, " n"]  # the largest, of all rivals
    own_distance: Float[Array, " n"]  # squared, to the means of i and j
    rival_distance: Float[Array, " n"]


@jit_quickly
def predict_queries(geometry: PairGeometry, shots: Float[Array, " k"]) -> QueryErrors:
    """What the rule does with every query."""
    (found,) = look(queries_of(geometry), query_pass(shared(geometry), shots))
    return found


def query_pass(classes: Classes, shots: Float[Array, " k"]) -> Pass:
    """The same as a pass over the queries."""

    def step(total: None, block: QueryGeometry) -> tuple[None, QueryErrors]:
        error, wrong = of_queries(compared(block), classes, shots, few=True, pairs=True)
        assert wrong is not None
        own, distance, spread = own_class(block), block.squared_distance, 4 * block.along / shots[None]
        deviation = jnp.sqrt(jnp.maximum(of_own(spread, own) + spread, jnp.finfo(jnp.float32).tiny))
        nearness = jnp.where(own, -jnp.inf, (of_own(distance, own) - distance) / deviation)
        largest = jnp.max(wrong, axis=1)
        certain = (largest >= 1) | (largest <= 0)
        rival = jnp.where(certain, jnp.argmax(nearness, axis=1), jnp.argmax(wrong, axis=1))
        return total, QueryErrors(
            error=jnp.clip(error, 0, 1),
            rival=rival,
            nearness=jnp.max(nearness, axis=1),
            own_distance=of_own(distance, own)[:, 0],
            rival_distance=jnp.take_along_axis(distance, rival[:, None], axis=1)[:, 0],
        )

    return Pass(None, step, lambda _, values: values, block_rows(len(shots)))
