"""What a record holds of every sample, made in one look at them: a certificate, predictions, and who is hard."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.certificates import Certificate
from dnc.certificates.bounds import NEEDS_QUERIES, named
from dnc.certificates.conditional import conditional_pass
from dnc.certificates.margin import margin_terms
from dnc.compiling import jit_quickly
from dnc.few_shot.distances import queries_of, shared
from dnc.few_shot.predict import PredictedError, QueryErrors, prediction_pass, query_pass
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.queries import look
from dnc.types import Array, Float

_MANY = 2**20  # pairs of a sample and a class


@dataclasses.dataclass(frozen=True)
class EverySample:
    """`exact_conditional` at some shots, the predicted error at these and others, and errors of every query at one.

    `predicted` has pairs of the certificate's shots alone.
    """

    conditional: Certificate
    predicted: PredictedError
    errors: QueryErrors


def every_sample(
    geometry: PairGeometry, shots: tuple[int, ...], further: Sequence[int | float], hard_shots: int
) -> EverySample:
    """Look at every query once."""
    k, entries = geometry.counts.shape[0], (*shots, *further)
    many = geometry.queries is not None and len(geometry.queries.labels) * k > _MANY
    look_at = _look_at_many if many else _look_at_few
    bounds, (per_class, per_pair), errors = look_at(
        geometry,
        jnp.asarray(shots, jnp.float32),
        jnp.asarray(np.repeat(np.asarray(entries, float)[:, None], k, axis=1), jnp.float32),
        jnp.full(k, hard_shots, jnp.float32),
        pairs=len(shots),
    )
    predicted = PredictedError(tuple(entries), jnp.mean(per_class, axis=1), per_class, per_pair)
    return EverySample(named(NEEDS_QUERIES, shots, margin_terms(geometry).overlap, bounds), predicted, errors)


def _look(
    geometry: PairGeometry,
    shots: Float[Array, " m"],
    entries: Float[Array, "e k"],
    hard_shots: Float[Array, " k"],
    pairs: int,
) -> tuple[Any, ...]:
    classes = shared(geometry)
    return look(
        queries_of(geometry),
        conditional_pass(geometry, shots),
        prediction_pass(classes, entries, pairs=pairs),
        query_pass(classes, hard_shots),
    )


_look_at_few = jit_quickly(_look, static_argnames="pairs")
_look_at_many = jax.jit(_look, static_argnames="pairs")  # which computes roots and logarithms of many at once
