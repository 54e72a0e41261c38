"""Collapse inside anyone's evaluation loop: batches in, geometry out, no features kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dnc.certificates import certificate, two_class
from dnc.geometry import validation
from dnc.geometry.inputs import as_codes
from dnc.geometry.measure import pair_geometry_from_moments
from dnc.geometry.moments import ClassMoments
from dnc.geometry.pairs import PairGeometry, mean_over_pairs

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

    A refused batch raises TypeError or ValueError and changes nothing: features not [n, d] with the d of the batches
    before or not finite, labels not integers in [0, k) or not n; with `normalize`, a sample of zeros.
    """

    def __init__(self, num_classes: int, *, normalize: bool = False, rows: int = 2048) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: collapse needs at least two classes")
        if rows < 1:
            raise ValueError(f"rows={rows}: give at least one")
        self.num_classes, self.normalize, self.rows = num_classes, normalize, rows
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._moments: ClassMoments | None = None
        self._dimension: int | None = None
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, features: Any, labels: Any) -> None:
        """Add a batch: features [n, d] and labels [n]; n may differ from batch to batch."""
        codes = as_codes(labels, "labels")
        if not len(codes) and not len(features):
            return
        array = validation.as_features(features)
        validation.check_same_length(len(array), len(codes), "labels")
        if self._dimension not in (None, array.shape[1]):
            raise ValueError(f"features have {array.shape[1]} columns, not {self._dimension} as before: reset() first")
        if codes.min() < 0 or codes.max() >= self.num_classes:
            raise ValueError(f"labels range over {codes.min()}..{codes.max()}, not 0..{self.num_classes - 1}")
        validation.check_finite(array)
        rows = validation.unit_rows(array) if self.normalize else array
        self._dimension = rows.shape[1]
        self._waiting.append((np.array(rows, np.float32), codes.copy()))
        if sum(len(codes) for _, codes in self._waiting) >= self.rows:
            self._add(self.rows)

    def merge(self, other: "CollapseMeter") -> "CollapseMeter":
        """A new meter of the samples of both: of the parts of a set that several processes have seen."""
        if (self.num_classes, self.normalize) != (other.num_classes, other.normalize):
            raise ValueError("the meters differ in num_classes or normalize")
        if None not in (self._dimension, other._dimension) and self._dimension != other._dimension:
            raise ValueError(f"the meters have features of {self._dimension} and {other._dimension} columns")
        merged = CollapseMeter(self.num_classes, normalize=self.normalize, rows=self.rows)
        for meter in (self, other):
            meter._add(1)
            if meter._moments is not None:
                merged._moments = meter._moments if merged._moments is None else merged._moments.merge(meter._moments)
                merged._dimension = meter._dimension
        return merged

    def compute(self) -> PairGeometry:
        """The geometry of all samples so far: `cdnv`, `directional_cdnv` [k, k], and what `dnc.certificate` takes.

        Raises ValueError, naming them, where classes have fewer than two samples, and for features whose fourth powers
        overflow.
        """
        self._add(1)
        counts = np.zeros(self.num_classes) if self._moments is None else np.asarray(self._moments.count)
        codes = np.repeat(np.arange(self.num_classes), counts.astype(int))
        validation.check_classes(codes, [str(c) for c in range(self.num_classes)])
        assert self._moments is not None
        geometry = pair_geometry_from_moments(self._moments)
        if not np.isfinite(np.asarray(geometry.fourth_moment)).all():
            raise ValueError(
                "fourth moments overflow float32: divide the features by a constant, which changes no ratio"
            )
        return geometry

    def scalars(self, shots: Sequence[int] = ()) -> dict[str, float]:
        """Means over pairs of classes, to log: cdnv, directional_cdnv, and for each m in `shots` two_class_bound_m.

        The last is `exact_cantelli`: no nearest-center classifier of two of these classes, from m samples of each, has
        a larger expected error on them.
        """
        geometry = self.compute()
        values = {"cdnv": geometry.cdnv, "directional_cdnv": geometry.directional_cdnv}
        if len(shots):
            bounds = two_class(certificate("exact_cantelli", geometry, shots))
            values |= {f"two_class_bound_{m}": bound for m, bound in zip(shots, bounds, strict=True)}
        return {name: float(np.asarray(mean_over_pairs(value))) for name, value in values.items()}

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that the meter holds, as arrays: to save, or to send to another process that merges it."""
        self._add(1)
        return {} if self._moments is None else {name: np.asarray(getattr(self._moments, name)) for name in FIELDS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the place of the meter whose `state_dict` this is, made with the same arguments.

        Raises ValueError for arrays of other names or another number of classes.
        """
        if state and (set(state) != set(FIELDS) or len(state["count"]) != self.num_classes):
            raise ValueError(f"state is not of a meter of {self.num_classes} classes: it needs the arrays {FIELDS}")
        self.reset()
        if state:
            self._moments = ClassMoments(**{name: jnp.asarray(state[name]) for name in FIELDS})
            self._dimension = len(state["origin"])

    def _add(self, least: int) -> None:
        """Add the waiting samples to the moments, while there are `least` of them, padded to one shape."""
        if not self._waiting:
            return
        features, labels = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        while len(labels) >= least:
            x, y = features[: self.rows], labels[: self.rows]
            features, labels = features[self.rows :], labels[self.rows :]
            short = self.rows - len(y)
            weights = np.pad(np.ones(len(y), np.float32), (0, short))
            x, y = np.pad(x, ((0, short), (0, 0))), np.pad(y, (0, short))
            batch = ClassMoments.from_batch(x, y, self.num_classes, weights)
            self._moments = batch if self._moments is None else self._moments.merge(batch)
        self._waiting = [(features, labels)] if len(labels) else []
