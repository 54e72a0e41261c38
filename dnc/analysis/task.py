"""One labeling of one set of features: its geometry, certificates and measured error, computed once each."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dnc import distributed, errors
from dnc.analysis.every_sample import EverySample, every_sample
from dnc.analysis.recorded import task_record
from dnc.certificates import CERTIFICATES, Certificate, available, certificate
from dnc.certificates.bounds import NEEDS_QUERIES
from dnc.certificates.intervals import Interval, jackknife
from dnc.certificates.margin import margin_terms
from dnc.compiling import jit_quickly
from dnc.few_shot.curve import GRID
from dnc.few_shot.guarantee import Guarantee, guarantee
from dnc.few_shot.hard import HardSamples, hard_samples
from dnc.few_shot.measured import FewShotError, few_shot_error
from dnc.few_shot.predict import PredictedError, predicted_error
from dnc.geometry.collapse import NeuralCollapse, neural_collapse
from dnc.geometry.decomposition import VarianceSplit, spread_pairs, variance_split
from dnc.geometry.measure import pair_geometry, resolve_overlap
from dnc.geometry.pairs import PairGeometry, mean_over_pairs
from dnc.geometry.queries import covariance_form, query_operations
from dnc.geometry.shots import check_allocations
from dnc.record import TaskRecord
from dnc.types import Float, Int

Shots: TypeAlias = Sequence[Any] | Mapping[str, int]  # entries: of all classes alike, or one number of each class
_QUERY_OPERATIONS = 5e12  # multiplications up to which every analysis looks at every sample
_HARD_SHOTS = 10  # of the hard samples that a record names, where these are among its shots
_LEAST_DISTANCE = 1e-16  # squared, in features of unit variance: below, float32 does not hold its fourth moments


@dataclasses.dataclass(frozen=True)
class TaskAnalysis:
    """One labeling of the features: its class geometry, certificates and measured few-shot error."""

    # Translated and scaled by 1 / unit, which changes no ratio.
    features: Float[jax.Array, "n d"] = dataclasses.field(repr=False)
    labels: Int[np.ndarray, " n"] = dataclasses.field(repr=False)
    classes: tuple[str, ...]
    shots: tuple[int, ...]
    repeats: int
    seed: int
    unit: float
    replicates: int = 0  # of the jackknife
    mesh: Mesh | None = None  # whose devices share the samples when the geometry is measured
    ids: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)  # of the samples
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)  # classes with too few samples, and how many
    guarantees: bool = True  # whether the record holds the guarantee
    queries: bool = True  # whether it holds what looks at every sample

    def __repr__(self) -> str:
        return f"<TaskAnalysis of {len(self.labels):,} samples in {self.num_classes} classes, shots {self.shots}>"

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @functools.cached_property
    def geometry(self) -> PairGeometry:
        """All class-pair quantities, in units of `unit` (see `dnc.geometry.validation.standardize`).

        Raises ValueError for class means that the rest of the features dwarfs, so that float32 cannot hold their pair.
        """
        geometry = self._measure(queries=self.without_queries is None)
        distance = np.asarray(geometry.squared_distance)
        close = np.argwhere((distance > 0) & (distance < _LEAST_DISTANCE))
        if close.size:
            first, second = (self.classes[c] for c in close[0])
            raise ValueError(
                f"classes {first!r} and {second!r} lie {np.sqrt(distance[tuple(close[0])]):.0e} of the features' "
                "spread apart, too close for float32: leave out far samples, or measure the close classes on their own"
            )
        return geometry

    @property
    def _largest(self) -> int | None:
        """At least as many samples as any class has, where it matters: a multiple of 8, for fewer programs."""
        n, d = self.features.shape
        largest = -(-int(self.counts.max()) // 8) * 8
        return largest if covariance_form(n, self.num_classes, d, largest)[0] == "samples" else None

    @property
    def _query_operations(self) -> float:
        n, d = self.features.shape
        return query_operations(n, self.num_classes, d, self._largest)

    @property
    def without_queries(self) -> str | None:
        """Why `exact_conditional` and predictions are not part of every analysis; None where they are."""
        if not self.queries:
            return "it was not asked for"
        if self._query_operations > _QUERY_OPERATIONS:
            return f"it takes {self._query_operations:.0e} operations"
        return None

    @functools.cached_property
    def corrected(self) -> PairGeometry | None:
        """Estimates for the population, see `PairGeometry.with_corrected_distances`; None without exact overlaps."""
        exact = margin_terms(self.geometry).overlap == "exact"
        return self.geometry.with_corrected_distances() if exact else None

    @property
    def counts(self) -> Int[np.ndarray, " k"]:
        return np.bincount(self.labels, minlength=self.num_classes)

    @functools.cached_property
    def cdnv(self) -> Float[np.ndarray, "k k"]:
        """V_ij = (v_i + v_j) / d_ij^2; the diagonal is nan."""
        return np.asarray(self.geometry.cdnv)

    @functools.cached_property
    def directional_cdnv(self) -> Float[np.ndarray, "k k"]:
        """W_ij = u_ij^T Sigma_i u_ij / d_ij^2; the diagonal is nan. Not symmetric."""
        return np.asarray(self.geometry.directional_cdnv)

    @functools.cached_property
    def decomposition(self) -> VarianceSplit:
        """Decision-axis and orthogonal variance of up to ten class pairs, in the features' own units."""
        split = variance_split(self.features, self.labels, spread_pairs(self.num_classes))
        with np.errstate(over="ignore"):  # inf beyond what float64 holds
            values = [np.asarray(value, np.float64) * np.square(self.unit) for value in jax.tree.leaves(split)[1:]]
        return VarianceSplit(split.pairs, *values)

    @functools.cached_property
    def neural_collapse(self) -> NeuralCollapse:
        """Classical neural collapse, NC1 and NC2."""
        return neural_collapse(self.features, jnp.asarray(self.labels), num_classes=self.num_classes)

    def certificate(self, name: str, shots: Shots | None = None) -> Certificate:
        """Bound on the few-shot nearest-centroid error; `dnc.CERTIFICATES` lists the names.

        `exact_conditional` looks at every sample: where that takes long, it is computed when it is first asked for.
        """
        if name not in CERTIFICATES:
            raise errors.unknown("certificate", name, CERTIFICATES)
        return self._certificate(name, self._sizes(shots))

    def few_shot_error(
        self, shots: Shots | None = None, repeats: int | None = None, seed: int | None = None
    ) -> FewShotError:
        """Measured nearest-centroid error; raises ValueError naming a class with fewer than m + 1 samples."""
        repeats = self.repeats if repeats is None else repeats
        return self._few_shot_error(self._sizes(shots), repeats, self.seed if seed is None else seed)

    def predicted_error(self, shots: Shots | None = None) -> PredictedError:
        """The same in closed form, for any number of shots, also more than there are samples (inf: their limit)."""
        return predicted_error(self._with_queries, self.shots if shots is None else shots, self.classes)

    def guarantee(
        self,
        shots: Shots | None = None,
        confidence: float = 0.95,
        two_sided: bool = False,
        per_class: bool = False,
        seed: int | None = None,
    ) -> Guarantee:
        """Bounds of the error on new data, at a confidence; raises ValueError where there are too few samples."""
        return guarantee(
            self.features,
            self.labels,
            self.num_classes,
            self._sizes(shots),
            confidence=confidence,
            two_sided=two_sided,
            per_class=per_class,
            seed=self.seed if seed is None else seed,
            classes=self.classes,
        )

    def hard_samples(self, shots: int | Sequence[int] | Mapping[str, int] = 10, top: int | None = 20) -> HardSamples:
        """The `top` samples (None: all) that a rule of so many shots of each class most probably gets wrong."""
        is_known = isinstance(shots, int) and shots == self.hard_shots and "every_sample" in self.__dict__
        known = self.every_sample.errors if is_known else None
        return hard_samples(self._with_queries, shots, self.classes, top, self.ids, known)

    @property
    def hard_shots(self) -> int:
        """Shots of the hard samples that a record names."""
        return max((m for m in self.shots if m <= _HARD_SHOTS), default=_HARD_SHOTS)

    @functools.cached_property
    def every_sample(self) -> EverySample:
        """`exact_conditional` and predictions at the analysis's shots, predictions along a curve, hard samples."""
        further = (*sorted({*GRID} - {*self.shots}), math.inf)
        found = every_sample(self._with_queries, self.shots, further, self.hard_shots)
        self._cache[(NEEDS_QUERIES, self.shots)] = found.conditional
        return found

    @functools.cached_property
    def intervals(self) -> dict[str, Interval]:
        """95% intervals, for the population, of `mean_cdnv`, `mean_directional_cdnv` and every bound [shots], by name.

        Delete-a-group jackknife of corrected moments, with `replicates` groups, or as many as the smallest class has
        samples; {} for none. `exact_conditional` has one only where it is cheap. nan where the samples, less any of the
        groups, cannot tell the means of some pair apart.
        """
        groups = min(self.replicates, int(self.counts.min()))
        if groups < 2:
            return {}
        queries = self.without_queries is None and groups * self._query_operations <= _QUERY_OPERATIONS
        names = tuple(name for name in available(self.geometry) if queries or name != NEEDS_QUERIES)
        intervals = jackknife(
            jax.random.key(self.seed),
            self.features,
            jnp.asarray(self.labels),
            self.num_classes,
            _statistics(names, self.shots),
            groups=groups,
            queries=queries,
        )
        parts = (intervals.estimate, intervals.low, intervals.high)  # of logarithms
        deviation = {name: np.asarray(value) for name, value in intervals.deviation.items()}
        values = {name: [np.exp(np.asarray(part[name])) for part in parts] for name in intervals.estimate}
        return {name: Interval(*value, deviation=value[0] * deviation[name]) for name, value in values.items()}

    def halves(self, seed: int = 0) -> tuple["TaskAnalysis", "TaskAnalysis"]:
        """The samples of every class split in two at random: moments and certificates of the first half, measured
        error of the second, make a split estimate, free of the bias of measuring both on the same samples.

        Raises ValueError for a class with fewer than four samples. Shots are those that leave both halves a query.
        """
        if self.counts.min() < 4:
            smallest = int(self.counts.argmin())
            raise ValueError(f"class {self.classes[smallest]!r} has {self.counts[smallest]} samples: halves need four")
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(self.labels)), self.labels))
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        sides = [np.flatnonzero(rank % 2 == side) for side in (0, 1)]
        shots = tuple(m for m in self.shots if m < self.counts.min() // 2)
        first, second = (
            dataclasses.replace(self, features=self.features[rows], labels=self.labels[rows], shots=shots, ids=None)
            for rows in sides
        )
        return first, second

    def record(self, title: str = "labels") -> TaskRecord:
        """The task's entry of a result file: everything at the analysis's own shots. `title` names its stages."""
        return task_record(self, title)

    def has_computed(self, name: str) -> bool:
        """Whether a certificate was computed at the analysis's own shots."""
        return (name, self.shots) in self._cache

    def _sizes(self, shots: Shots | None) -> tuple[Any, ...]:
        return self.shots if shots is None else check_allocations(shots, self.num_classes, self.classes)

    @functools.cached_property
    def _cache(self) -> dict[Any, Any]:
        return {}

    def _certificate(self, name: str, shots: tuple[Any, ...]) -> Certificate:
        key = (name, shots)
        if key not in self._cache:
            has_all = name in available(self.geometry)
            self._cache[key] = certificate(name, self.geometry if has_all else self._with_queries, shots)
        return self._cache[key]

    @functools.cached_property
    def _with_queries(self) -> PairGeometry:
        """The geometry with what is known of every sample."""
        return self.geometry if self.geometry.queries is not None else self._measure(queries=True)

    def _measure(self, queries: bool) -> PairGeometry:
        n, d = self.features.shape
        overlap = resolve_overlap("auto", self.num_classes, d, samples=n)
        settings = {"num_classes": self.num_classes, "overlap": overlap, "queries": queries}
        settings |= {"largest": self._largest} if queries else {}
        if self.mesh is None or self.mesh.size == 1:
            return pair_geometry(self.features, jnp.asarray(self.labels), **settings)
        n = len(self.labels)
        padded = -(-n // self.mesh.size) * self.mesh.size
        mine = distributed.local_rows(self.mesh, padded)
        rows = np.minimum(mine, n - 1)  # padding repeats the last sample, with weight 0
        batch = np.asarray(self.features)[rows], self.labels[rows], (mine < n).astype(np.float32)
        measure = _sharded_geometry(self.mesh, **settings)
        geometry = measure(*distributed.shard_batch(self.mesh, batch))
        return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), geometry)  # the rest is computed per process

    def _few_shot_error(self, shots: tuple[Any, ...], repeats: int, seed: int) -> FewShotError:
        key = (shots, repeats, seed)
        if key not in self._cache:
            self._cache[key] = few_shot_error(
                jax.random.key(seed),
                self.features,
                self.labels,
                shots,
                repeats,
                self.num_classes,
                classes=self.classes,
            )
        return self._cache[key]


@functools.cache
def _sharded_geometry(mesh: Mesh, **settings: Any) -> Callable[..., PairGeometry]:
    """`pair_geometry` of samples split over a mesh, its result whole on every device."""
    measure = functools.partial(pair_geometry, parts=mesh.size, **settings)
    return jit_quickly(lambda x, y, weights: measure(x, y, weights=weights), out_shardings=distributed.replicated(mesh))


@functools.cache
def _statistics(names: tuple[str, ...], shots: tuple[int, ...]) -> Callable[[PairGeometry], dict[str, jax.Array]]:
    """Logarithms of what intervals are made for; one function for equal arguments: equal shapes compile once."""

    def statistics(geometry: PairGeometry) -> dict[str, jax.Array]:
        m = jnp.asarray(shots, jnp.float32)
        exact = margin_terms(geometry).overlap == "exact"
        population = geometry.with_corrected_distances() if exact else geometry
        values = {f"mean_{name}": mean_over_pairs(getattr(population, name)) for name in ("cdnv", "directional_cdnv")}
        for name in names:
            values[name] = CERTIFICATES[name](geometry if name == NEEDS_QUERIES else population, m).bound
        return jax.tree.map(jnp.log, values)

    return statistics
