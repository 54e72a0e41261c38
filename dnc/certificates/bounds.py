"""Few-shot certificates by name: one signature, one table.

`certificate("exact_cantelli", geometry, shots=[1, 5, 10])` bounds the error of the nearest-class-center (NCC)
classifier whose centroids are means of m shots per class, from the geometry of the whole population.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from dnc import errors
from dnc.certificates.conditional import exact_conditional
from dnc.certificates.exact import exact_cantelli, exact_chebyshev, exact_joint
from dnc.certificates.margin import Shots, margin_terms
from dnc.certificates.published import cdnv, luthra2025, luthra2026, luthra2026_limit
from dnc.certificates.union import Bounds
from dnc.compiling import jit_quickly
from dnc.geometry.pairs import PairGeometry
from dnc.geometry.shots import check_allocations, shots_by_class
from dnc.types import Array, Bool, Float

CERTIFICATES: dict[str, Callable[[PairGeometry, Any], Bounds]] = {
    "cdnv": cdnv,
    "luthra2025": luthra2025,
    "luthra2026": luthra2026,
    "luthra2026_limit": luthra2026_limit,
    "exact_chebyshev": exact_chebyshev,
    "exact_cantelli": exact_cantelli,
    "exact_joint": exact_joint,
    "exact_conditional": exact_conditional,
}
NEEDS_QUERIES = "exact_conditional"
_ANY_SHOTS = frozenset({"exact_chebyshev", "exact_cantelli", "exact_joint", "exact_conditional"})  # may differ by class
NOT_CERTIFICATES = frozenset({"cdnv", "luthra2026_limit"})  # up to a constant; of infinitely many shots


def available(geometry: PairGeometry) -> tuple[str, ...]:
    """Names of the certificates that the geometry has the moments for."""
    if geometry.margin_terms is None:
        return ()
    return tuple(name for name in CERTIFICATES if name != NEEDS_QUERIES or geometry.queries is not None)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A bound on NCC error at each number of shots.

    Attributes:
      name: its name in `CERTIFICATES`.
      shots: a number for all classes, or one of each class.
      bound: on the error, the mean over classes of `per_class`.
      per_class: on P(error | x in class i), at most 1 (except `cdnv`).
      per_pair: on P(Delta_ij <= 0 | x in class i), ordered, at most 1 (except `cdnv`), diagonal 0. For `exact_joint`,
        those of `exact_cantelli`.
      unclipped: the same before clipping at 1, inf where not defined; for curves that start far above 1.
        `exact_conditional` has no such form.
      defined: where the pair's bound exists (expected margin positive); elsewhere the pair counts as 1.
      valid: where the number of shots lies within the theorem's assumptions (`luthra2026`: m >= 10).
      overlap: of the geometry: "exact", or the upper bound that replaced tr(Sigma_i Sigma_j).
      is_certificate: False for `cdnv` (up to a constant) and `luthra2026_limit` (infinitely many shots): the error may
        exceed them.
    """

    name: str
    shots: tuple[Any, ...]
    bound: Float[Array, " m"]
    per_class: Float[Array, "m k"]
    per_pair: Float[Array, "m k k"]
    unclipped: Float[Array, "m k k"]
    defined: Bool[Array, "m k k"]
    valid: Bool[Array, " m"]
    overlap: str
    is_certificate: bool


def certificate(name: str, geometry: PairGeometry, shots: Sequence[Any]) -> Certificate:
    """Evaluate the bound `name` for all shots, classes and pairs at once.

    An entry of `shots` is one number for all classes or, for the exact certificates, a sequence of one for each.

    Exact for support and query drawn independently from the distribution that the geometry's moments describe: for
    moments of a sample, its empirical distribution. Compiled once for each name, k, and number of shot sizes.

    Raises:
      ValueError: unknown name, no shots, shots below 1, fewer than two classes, or a geometry without the moments that
        certificates need (`overlap="none"`).

    Examples:
        >>> import numpy as np
        >>> from dnc.geometry.measure import pair_geometry
        >>> features = np.array([[-1.0, 0.0], [1.0, 0.0], [4.0, -1.0], [4.0, 1.0]])
        >>> geometry = pair_geometry(features, np.array([0, 0, 1, 1]), num_classes=2)
        >>> [f"{bound:.3f}" for bound in certificate("exact_cantelli", geometry, shots=[1, 10**6]).bound.tolist()]
        ['0.210', '0.100']
    """
    if name not in CERTIFICATES:
        raise errors.unknown("name", name, CERTIFICATES)
    k = geometry.counts.shape[0]
    sizes = check_allocations(shots, k)
    equal = all(isinstance(size, int) for size in sizes)
    if not equal and name not in _ANY_SHOTS:
        raise ValueError(f"{name} takes the same shots of every class: choose one of {sorted(_ANY_SHOTS)}")
    if k < 2:
        raise ValueError(f"geometry has {k} class, but a certificate needs at least 2")
    overlap = margin_terms(geometry).overlap
    if name == NEEDS_QUERIES and geometry.queries is None:
        raise ValueError(f"{name} needs the queries: measure the geometry with pair_geometry(..., queries=True)")
    if name != NEEDS_QUERIES:
        geometry = dataclasses.replace(geometry, queries=None, trace_of_cube=None)  # unused: no compilation for each n
    geometry = dataclasses.replace(geometry, means=geometry.means[:, :0])  # unused: no compilation for each d
    by_class = jnp.asarray(sizes if equal else shots_by_class(sizes, k), dtype=geometry.variance.dtype)
    bounds = _evaluate(name, geometry, by_class)
    return named(name, sizes, overlap, bounds)


def named(name: str, shots: tuple[Any, ...], overlap: str, bounds: Bounds) -> Certificate:
    """Bounds as the certificate of that name."""
    fields = {field.name: getattr(bounds, field.name) for field in dataclasses.fields(bounds)}
    return Certificate(name=name, shots=shots, overlap=overlap, is_certificate=name not in NOT_CERTIFICATES, **fields)


def two_class(certificate: Certificate) -> Float[Array, "m k k"]:
    """Bound on the error of each two-class subtask {i, j}: the mean of its two ordered terms, diagonal 0."""
    return (certificate.per_pair + certificate.per_pair.mT) / 2


@functools.partial(jit_quickly, static_argnames="name")
def _evaluate(name: str, geometry: PairGeometry, shots: Shots) -> Bounds:
    return CERTIFICATES[name](geometry, shots)
