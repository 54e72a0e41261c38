"""Collapse inside anyone's evaluation loop: batches in, geometry out, no features kept."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnc.certificates import certificate, two_class
from dnc.geometry import validation
from dnc.geometry.inputs import as_array, as_codes
from dnc.geometry.measure import pair_geometry_from_moments
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pairs import PairGeometry, mean_over_pairs
from dnc.types import Float

_ROUNDING = 2.0**-22  # of means that are kept in float32
FIELDS = ("origin", "count", "mean", "variance", "fourth_moment", "third_moment", "covariance")


class CollapseMeter:
    """CDNV, directional CDNV and certificates of features that come in batches, in one pass and constant memory.

        meter = dnc.CollapseMeter(num_classes=10)
        for images, labels in loader:
            meter.update(encoder(images), labels)  # NumPy, JAX or PyTorch: any device, with gradients, bfloat16
        meter.compute().directional_cdnv           # [k, k]
        meter.scalars(shots=[5])                   # a few numbers, to log

    What is kept are the classes' moments up to order four with their covariances (see `ClassMoments`), k d^2 float32
    numbers, and up to `rows` samples that wait to be added to them. Adding them takes four times that memory for a
    moment, and O(rows d^2 + k d^2) operations whatever size the batches have.

    The directional variance u^T Sigma_c u is a quadratic form of a float32 covariance: it loses about
    tr Sigma_c / (u^T Sigma_c u) times 1e-7 of relative accuracy. `dnc.analyze` of features that were kept does not.

    num_classes: k; labels lie in [0, k).
    normalize: divide each sample by its Euclidean norm first, as in `dnc.analyze`.
    rows: how many samples are added at once.

    The first batch sets an origin and a power of two as the unit, in which later ones are kept: offsets and scales that
    float32 could not hold change no ratio.

    A refused batch raises TypeError or ValueError and changes nothing: features not [n, d] with the d of the batches
    before or not finite, labels not integers in [0, k) or not n; with `normalize`, a sample of zeros.
    """

    def __init__(self, num_classes: int, *, normalize: bool = False, rows: int = 2048) -> None:
        for name, value, least in (("num_classes", num_classes, 2), ("rows", rows, 1)):
            if operator.index(value) < least:
                raise ValueError(f"{name}={value}: give at least {least}")
        self.num_classes, self.normalize, self.rows = num_classes, normalize, rows
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._moments: ClassMoments | None = None
        self._origin, self._unit = np.zeros(0), 1.0  # float64; of what is kept, see `_coordinates`
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, features: Any, labels: Any) -> None:
        """Add a batch: features [n, d] and labels [n]; n may differ from batch to batch."""
        given = as_array(features, "features")
        if given.ndim == 2 and not len(given) and not len(labels):
            return
        codes = as_codes(labels, "labels")
        array = validation.as_features(given)
        validation.check_same_length(len(array), len(codes), "labels")
        if len(self._origin) not in (0, array.shape[1]):
            raise ValueError(
                f"features have {array.shape[1]} columns, not {len(self._origin)} as before: reset() first"
            )
        if codes.min() < 0 or codes.max() >= self.num_classes:
            raise ValueError(f"labels range over {codes.min()}..{codes.max()}, not 0..{self.num_classes - 1}")
        validation.check_finite(array)
        rows = (validation.unit_rows(array) if self.normalize else array).astype(np.float64)
        origin, unit = (self._origin, self._unit) if len(self._origin) else _coordinates(rows)
        with np.errstate(over="ignore"):
            kept = ((rows - origin) / unit).astype(np.float32)
        if not np.isfinite(kept).all():
            raise ValueError("features are too far from those before for float32: leave far samples out")
        self._origin, self._unit = origin, unit
        self._waiting.append((kept, codes.copy()))
        if sum(len(codes) for _, codes in self._waiting) >= self.rows:
            self._add(self.rows)

    def merge(self, other: "CollapseMeter") -> "CollapseMeter":
        """A new meter of the samples of both: of the parts of a set that several processes have seen."""
        if (self.num_classes, self.normalize) != (other.num_classes, other.normalize):
            raise ValueError("the meters differ in num_classes or normalize")
        parts = [meter for meter in (self, other) if len(meter._origin)]
        if len({len(meter._origin) for meter in parts}) > 1:
            raise ValueError(f"the meters have features of {len(self._origin)} and {len(other._origin)} columns")
        merged = CollapseMeter(self.num_classes, normalize=self.normalize, rows=self.rows)
        for meter in parts:
            meter._add(1)
            assert meter._moments is not None
            if merged._moments is None:
                merged._moments, merged._origin, merged._unit = meter._moments, meter._origin, meter._unit
            else:
                shift, ratio = (meter._origin - merged._origin) / merged._unit, meter._unit / merged._unit
                merged._moments = merged._moments.merge(_moved(meter._moments, shift, ratio))
        return merged

    def compute(self) -> PairGeometry:
        """The geometry of all samples so far: `cdnv`, `directional_cdnv` [k, k], and what `dnc.certificate` takes.

        The geometry is about the first batch's mean, in units of a power of two near its spread.

        Raises ValueError where classes have fewer than two samples, and where float32 cannot tell two classes apart,
        naming them; and where it cannot hold fourth moments.
        """
        self._add(1)
        counts = np.zeros(self.num_classes) if self._moments is None else np.asarray(self._moments.count)
        if (few := np.flatnonzero(counts < 2)).size:
            listed = ", ".join(f"{c} has {counts[c]:g}" for c in few[:5])
            raise ValueError(f"every class needs at least two samples: class {listed}")
        assert self._moments is not None
        geometry = pair_geometry_from_moments(self._moments)
        fourth, variance = np.asarray(geometry.fourth_moment), np.asarray(geometry.variance)
        if not np.isfinite(fourth).all() or ((fourth < np.finfo(np.float32).tiny) & (variance > 0)).any():
            raise ValueError(
                "fourth moments leave the range of float32 in units of the first batch's spread: it is far from typical"
            )
        means, names = np.asarray(self._moments.mean, np.float64), [str(c) for c in range(self.num_classes)]
        validation.check_means(means - np.average(means, axis=0, weights=counts), names, rounding=_ROUNDING)
        return geometry

    def scalars(self, shots: Sequence[int] = ()) -> dict[str, float]:
        """Means over pairs of classes, to log: cdnv, directional_cdnv, and for each m in `shots` two_class_bound_m.

        The last is the mean over pairs of `exact_cantelli`: of each pair it bounds the expected error, on the samples
        that were metered, of the nearest of two centers from m of them each.
        """
        geometry, shots = self.compute(), list(shots)
        values = {"cdnv": geometry.cdnv, "directional_cdnv": geometry.directional_cdnv}
        if len(shots):
            bounds = two_class(certificate("exact_cantelli", geometry, shots))
            values |= {f"two_class_bound_{m}": bound for m, bound in zip(shots, bounds, strict=True)}
        return {name: float(np.asarray(mean_over_pairs(value))) for name, value in values.items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that the meter holds, as arrays: to save, or to send to another process that merges it."""
        self._add(1)
        if self._moments is None:
            return {}
        settings = {"shift": self._origin, "unit": np.asarray(self._unit), "normalize": np.asarray(self.normalize)}
        return settings | {name: np.asarray(getattr(self._moments, name)) for name in FIELDS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the place of the meter whose `state_dict` this is, made with the same arguments.

        Raises ValueError, and changes nothing, for the state of a meter with other classes or `normalize`.
        """
        held = {name: np.asarray(state[name]) for name in state}
        if held:
            k, d = self.num_classes, held["shift"].size if "shift" in held else 0
            like = jax.eval_shape(lambda: ClassMoments.empty(k, d))
            shapes = {name: getattr(like, name).shape for name in FIELDS} | {"shift": (d,), "unit": (), "normalize": ()}
            if {name: array.shape for name, array in held.items()} != shapes:
                raise ValueError(f"state is not of a meter of {k} classes: its arrays must be {shapes}")
            if bool(held["normalize"]) != self.normalize:
                raise ValueError(f"state is of a meter with normalize={bool(held['normalize'])}")
        self.reset()
        if held:
            self._moments = ClassMoments(**{name: jnp.asarray(held[name]) for name in FIELDS})
            self._origin, self._unit = held["shift"].astype(np.float64), float(held["unit"])

    def _add(self, least: int) -> None:
        """Add the waiting samples to the moments, while there are `least` of them, padded to one shape."""
        if not self._waiting:
            return
        features, labels = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        moments = self._moments
        while len(labels) >= least:
            x, y = features[: self.rows], labels[: self.rows]
            features, labels = features[self.rows :], labels[self.rows :]
            short = self.rows - len(y)
            weights = np.pad(np.ones(len(y), np.float32), (0, short))
            x, y = np.pad(x, ((0, short), (0, 0))), np.pad(y, (0, short))
            batch = ClassMoments.from_batch(x, y, self.num_classes, weights)
            moments = batch if moments is None else moments.merge(batch)
        # Both at once: an error above, such as of memory, leaves every sample waiting, and none is added twice.
        self._moments, self._waiting = moments, [(features, labels)] if len(labels) else []


def _coordinates(rows: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], float]:
    """The mean, and the power of two next to the root of the mean squared distance from it; 1 where that is 0."""
    origin = rows.mean(axis=0)
    spread = float(np.sqrt(np.mean(np.sum((rows - origin) ** 2, axis=1))))
    spread = spread if spread > 0 and len(rows) > 1 else float(np.abs(rows).max()) or 1.0
    return origin, float(2.0 ** np.round(np.log2(spread)))


def _moved(moments: ClassMoments, shift: Float[np.ndarray, " d"], ratio: float) -> ClassMoments:
    """Moments of x * ratio + shift from those of x."""
    assert moments.fourth_moment is not None
    assert moments.third_moment is not None
    assert moments.covariance is not None
    return ClassMoments(
        jnp.asarray(np.asarray(moments.origin, np.float64) * ratio + shift, jnp.float32),
        moments.count,
        moments.mean * ratio,
        moments.variance * ratio**2,
        moments.fourth_moment * ratio**4,
        moments.third_moment * ratio**3,
        moments.covariance * ratio**2,
    )
