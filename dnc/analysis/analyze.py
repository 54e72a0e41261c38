"""Measure directional collapse of labeled features: the API behind `dnc.analyze`.

    result = dnc.analyze(features, labels)
    result.directional_cdnv                                # [k, k]
    result.certificate("exact_cantelli", shots=[1, 5])     # .bound, .per_class, .per_pair
    result.save("run.json")

Geometry is computed at once; measured error and certificates when they are first asked for.
"""

import contextlib
import dataclasses
import datetime
import functools
import html
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from threadpoolctl import threadpool_limits

from dnc.analysis import related
from dnc.analysis.labelings import encode, fitting_shots
from dnc.analysis.progress import stage
from dnc.analysis.task import Shots, TaskAnalysis
from dnc.certificates import Certificate
from dnc.few_shot.guarantee import Guarantee
from dnc.few_shot.hard import HardSamples
from dnc.few_shot.measured import FewShotError
from dnc.few_shot.predict import PredictedError
from dnc.geometry import inputs, spectrum, validation
from dnc.geometry.energy_spectrum import early_energy
from dnc.names import clean
from dnc.record import AxesRecord, HardSample, Record
from dnc.types import Float

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Result of `analyze`: `tasks[name]` for each labeling; with a single one its members are here too."""

    tasks: dict[str, TaskAnalysis]
    samples: int
    dimension: int
    normalized: bool
    seed: int
    name: str | None = None
    step: int | None = None
    epoch: float | None = None
    features: Any = dataclasses.field(default=None, repr=False)  # as given, or with rows of length 1 if normalized
    views: Any = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        classes = (f"{clean(name)} ({task.num_classes} classes)" for name, task in self.tasks.items())
        return f"<Analysis of {self.samples:,} x {self.dimension:,} features: {', '.join(classes)}>"

    def _repr_html_(self) -> str:
        """What notebooks show. It computes nothing."""
        rows = (
            f"<tr><th>{html.escape(clean(name))}</th><td>{task.num_classes}</td>"
            f"<td>{task.counts.min():,} to {task.counts.max():,}</td><td>{', '.join(map(str, task.shots))}</td></tr>"
            for name, task in self.tasks.items()
        )
        head = "<tr><th>labeling</th><th>classes</th><th>samples per class</th><th>shots</th></tr>"
        title = f"Analysis of {self.samples:,} × {self.dimension:,} features{', normalized' if self.normalized else ''}"
        return f"<p>{title}</p><table>{head}{''.join(rows)}</table>"

    @property
    def task(self) -> TaskAnalysis:
        """The only labeling; raises AttributeError when there are several."""
        if len(self.tasks) > 1:
            raise AttributeError(f"there are several labelings: choose one, as in .tasks[{next(iter(self.tasks))!r}]")
        return next(iter(self.tasks.values()))

    @property
    def cdnv(self) -> Float[np.ndarray, "k k"]:
        """CDNV of the only labeling."""
        return self.task.cdnv

    @property
    def directional_cdnv(self) -> Float[np.ndarray, "k k"]:
        """Directional CDNV of the only labeling."""
        return self.task.directional_cdnv

    def certificate(self, name: str, shots: Shots | None = None) -> Certificate:
        """`TaskAnalysis.certificate` of the only labeling."""
        return self.task.certificate(name, shots)

    def few_shot_error(
        self, shots: Shots | None = None, repeats: int | None = None, seed: int | None = None
    ) -> FewShotError:
        """`TaskAnalysis.few_shot_error` of the only labeling."""
        return self.task.few_shot_error(shots, repeats, seed)

    def predicted_error(self, shots: Shots | None = None) -> PredictedError:
        """`TaskAnalysis.predicted_error` of the only labeling."""
        return self.task.predicted_error(shots)

    def guarantee(
        self,
        shots: Shots | None = None,
        confidence: float = 0.95,
        two_sided: bool = False,
        per_class: bool = False,
        seed: int | None = None,
    ) -> Guarantee:
        """`TaskAnalysis.guarantee` of the only labeling."""
        return self.task.guarantee(shots, confidence, two_sided, per_class, seed)

    def hard_samples(self, shots: int | Sequence[int] | Mapping[str, int] = 10, top: int | None = 20) -> HardSamples:
        """`TaskAnalysis.hard_samples` of the only labeling."""
        return self.task.hard_samples(shots, top)

    @functools.cached_property
    def axes(self) -> dict[tuple[str, str], AxesRecord]:
        """|cos| between decision axes of each two labelings and the valid orthogonality bound, as quantiles.

        The bound needs labelings that are independent and balanced in the sample: elsewhere it is nan. `violations`
        counts cosines above it; there can be none.
        """
        return related.axes_records(self.tasks)

    @functools.cached_property
    def interference(self) -> dict[str, dict[str, float]]:
        """Share of within-class variance along a task's decision axes that another task explains (mean of axes)."""
        return related.interference(self.tasks)

    @functools.cached_property
    def spectrum(self) -> dict[str, float]:
        """Label-free measures: `rankme`, `effective_rank`, `participation_ratio`, `alpha_req`; `lidar` of `views`."""
        with threadpool_limits(limits=1, user_api="blas"):  # on a shared machine, LAPACK's threads wait for each other
            measures = spectrum.label_free(*validation.scaled_and_centered(self.features))
            if self.views is not None:
                measures = measures | {"lidar": spectrum.lidar(self.views)}
            return {name: float(value) for name, value in measures.items()}

    @functools.cached_property
    def energy(self) -> dict[str, dict[int, float]]:
        """Captured energy of each labeling in the first r principal components, see `early_energy`."""
        return early_energy(self.features, {n: (t.labels, t.num_classes) for n, t in self.tasks.items()})

    @functools.cached_property
    def record(self) -> Record:
        """Every number, as a result file holds it."""
        tasks = {name: task.record(clean(name)) for name, task in self.tasks.items()}
        with stage("axes of several labelings") if len(tasks) > 1 else contextlib.nullcontext():
            angles, shares = self.axes, self.interference
        with stage("spectrum"):
            measures, energy = self.spectrum, self.energy
        return Record(
            tasks=tasks,
            name=self.name,
            step=self.step,
            epoch=self.epoch,
            samples=self.samples,
            dimension=self.dimension,
            normalized=self.normalized,
            seed=self.seed,
            spectrum=measures,
            energy=energy,
            axes=angles,
            interference=shares,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python numbers, strings, lists and dicts; nan and inf become None."""
        return self.record.to_json()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as JSON, atomically: a reader never sees half a file. See `Record.files` for many classes."""
        self.record.save(path)

    def to_pandas(self) -> "pd.DataFrame":
        """One row per task and number of shots: collapse, measured error and every bound."""
        return self.record.to_pandas()

    def summary(self) -> str:
        """A plain-text table: collapse, measured error and the main certificates of every labeling."""
        return self.record.summary()

    def to_html(
        self,
        output: str | os.PathLike[str],
        provenance: Mapping[str, str] | None = None,
        images: Callable[[HardSample], Any] | None = None,
    ) -> pathlib.Path:
        """Write a self-contained report, and `analysis.json`, into a folder; returns the path of its page.

        The folder is checked before anything is measured, and the numbers are written before the page is made.
        provenance: further lines of its "How it was made". images: the picture of a hard sample, as an image of Pillow
        or uint8 [h, w, 3], or None where there is none.
        """
        from dnc.report import folder, thumbnails
        from dnc.report.html import write_report
        from dnc.report.run import run_of

        output = pathlib.Path(output)
        folder.check(output)
        measured = {"measured": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"}
        pictures = None if images is None else thumbnails.of_samples(self.record, images)
        run = run_of([self.record], "analysis", measured | dict(provenance or {}), pictures)
        with stage("page"):
            return write_report(run, output, first=self.record.files("analysis"))


def analyze(
    features: Any,
    labels: Any,
    *,
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    normalize: bool = False,
    shots: Sequence[int] | None = None,
    repeats: int = 20,
    seed: int = 0,
    superclasses: Mapping[str, Any] | None = None,
    replicates: int = 0,
    name: str | None = None,
    step: int | None = None,
    epoch: float | None = None,
    mesh: Mesh | None = None,
    views: Any = None,
    ids: Sequence[Any] | None = None,
    least_samples: int = 2,
    guarantees: bool = True,
    queries: bool = True,
) -> Analysis:
    """Measure directional collapse of [n, d] features under one labeling, or several.

    Args:
      features: n rows of d real numbers: NumPy, JAX, PyTorch, pandas, Arrow, or anything with `__array__`.
      labels: n integers or strings; or a dict, labeling name -> n labels, for multitask geometry. Any values will
        do: they are mapped to 0..k-1 in sorted order and their names kept.
      class_names: names that integer labels index; for several labelings a dict of such lists.
      normalize: divide each row by its Euclidean norm first (recorded in the result).
      shots: shots per class for certificates and measured error. By default those of 1, 5, 10, 20, 50, 100 that leave
        every class a query.
      repeats: independent draws of support samples for the measured error.
      seed: of those draws.
      superclasses: class name -> superclass, to measure a coarser labeling, `superclass`, beside a single labeling.
      replicates: groups of the jackknife that makes 95% intervals of collapse and certificates, for the population (20
        will do); 0 for none.
      name, step, epoch: recorded in the result.
      mesh: measure class geometry on all its devices, each with a share of the samples (`dnc.distributed.make_mesh`).
        With several processes, each passes all samples and asks for the same geometries in the same order.
      views: features [n, q, d] of q augmented views of each of n images, any images, for LiDAR in `spectrum`.
      ids: a name for each sample, such as its file, by which hard samples are called; the row by default.
      least_samples: classes with fewer are left out, with all their samples, and named in the result; by default none.
      guarantees: whether the record holds the guarantee, seconds per labeling.
      queries: whether it holds what looks at every sample: `exact_conditional`, predictions and hard samples.

    Raises:
      ValueError or TypeError, before anything is computed, for features that are not finite or not [n, d], labels of
      another length, fewer than two classes, a class with fewer than two samples, or fewer than m + 1 of them for
      an m of `shots`.
    """
    if jax.config.jax_debug_nans or jax.config.jax_debug_infs:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("jax_debug_nans or jax_debug_infs is on, but nan and inf are results here: turn it off")
    array = validation.as_features(features)
    if repeats < 1 or replicates < 0:
        raise ValueError(f"repeats must be at least 1 and replicates at least 0, got {repeats} and {replicates}")
    labelings, kept = encode(labels, len(array), class_names, superclasses, least_samples)
    fitting = {task: fitting_shots(shots, labeling) for task, labeling in labelings.items()}
    validation.check_finite(array)
    if ids is not None:
        validation.check_same_length(len(array), len(ids), "ids")
    names = None
    if ids is not None or not kept.all():
        names = tuple(str(row if ids is None else ids[row]) for row in np.flatnonzero(kept).tolist())
        array = array[kept]
    views = None if views is None else inputs.as_numbers(views, "views")
    if views is not None and (views.ndim != 3 or views.shape[1] < 2 or not np.isfinite(views).all()):
        raise ValueError(f"views of shape {views.shape}: give finite features [n, q, d] of q >= 2 views per image")
    rows = validation.unit_rows(array) if normalize else array
    for task, labeling in labelings.items():
        validation.check_resolution(rows, labeling.codes, labeling.classes, task)
    standard, unit = validation.standardize(rows)
    on_device = jnp.asarray(standard)
    tasks = {
        task: TaskAnalysis(
            on_device,
            labeling.codes,
            labeling.classes,
            fitting[task],
            repeats,
            seed,
            unit,
            replicates,
            mesh,
            names,
            labeling.left_out,
            guarantees,
            queries,
        )
        for task, labeling in labelings.items()
    }
    n, d = array.shape
    return Analysis(tasks, n, d, normalize, seed, name, step, epoch, rows, views)
