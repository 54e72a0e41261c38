"""What is measured of a run: objects that turn (state, step) into numbers, at steps 0, 1, 2, 5, 10, ... and the last.

A config lists them by a label of its own choosing; `name`, the label by default, is one of MEASUREMENTS or the user's
own "package.module:Class", and the other entries are its options:

    config.measure = dict(
        collapse=dict(shots=(1, 5, 10), repeats=20, normalize=True, train_examples=0, lidar_examples=0),
        weights=dict(name="my_methods:WeightNorm", order=2),
    )

The numbers that a measurement returns are logged with the step's metrics; what else it makes, it writes itself.
None ends a run: what cannot be measured is reported, and training goes on.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from dnc import distributed, record
from dnc.analysis.analyze import analyze
from dnc.record import Record, TaskRecord
from dnc.report import thumbnails
from dnc.training.build import Config, Training, construct, plain
from dnc.training.interruption import must_end_run
from dnc.training.run_encoder import make_embedder, make_view_embedder
from dnc.training.state import TrainState

Measure = Callable[[TrainState, int], Mapping[str, Any]]


class Subject:
    """The run that is measured, and its features, computed once per step for all measurements.

    training: its data, objective and config. graphdef: of the network, for `nnx.merge(graphdef, state.params,
    state.rest, copy=True)`. workdir: its folder. say: prints a line above the progress bar.
    """

    def __init__(
        self,
        training: Training,
        graphdef: nnx.GraphDef,
        mesh: Mesh,
        workdir: epath.Path,
        say: Callable[[str], None] = print,
    ) -> None:
        self.training, self.graphdef, self.mesh, self.workdir, self.say = training, graphdef, mesh, workdir, say
        self._latest: tuple[int, np.ndarray] | None = None

    @functools.cached_property
    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """The held-out images uint8 [n, h, w, 3], and their labels [n] for each task."""
        return self.training.data.held_out()

    @property
    def left_out(self) -> int:
        """How many held-out images could not be decoded."""
        every = next(iter(self.training.data.held_out_labels().values()))
        return len(every) - len(self.held_out[0])

    def held_out_features(self, state: TrainState, step: int) -> np.ndarray:
        """Features [n, d] of the held-out images."""
        if self._latest is None or self._latest[0] != step:
            self._latest = step, self.features(state, step, self.held_out[0])
        return self._latest[1]

    def features(self, state: TrainState, step: int, images: np.ndarray) -> np.ndarray:
        """Features [n, d] of images uint8 [n, h, w, 3], computed by all processes together.

        Raises ValueError where one is not finite.
        """
        features = self._embed(state.params, state.rest, images)
        if not np.all(np.isfinite(features)):
            raise ValueError(f"step {step}: the features are not finite")
        return features

    @functools.cached_property
    def _embed(self) -> Callable[..., np.ndarray]:
        return make_embedder(self.graphdef, self.mesh)


class Measurement:
    """Base class of measurements, which are frozen dataclasses of their options."""

    def check(self, training: Training) -> None:
        """Raises ValueError, before any work, where the run cannot be measured like this."""

    def start(self, subject: Subject) -> Measure:
        """Called once, before the first step: the function that measures. All processes call it at the same steps."""
        raise NotImplementedError

    def is_recorded(self, workdir: epath.Path, step: int) -> bool:
        """Whether the files that it writes of a step are there; damaged ones are renamed, out of the reader's way."""
        return True


@dataclasses.dataclass(frozen=True)
class Collapse(Measurement):
    """`dnc.analyze` of the held-out images, saved as measurements/step_*.json: what the report is made of.

    What looks at every image comes at the last step alone, as it takes seconds per task: `exact_conditional`, the
    prediction, the guarantee, the hardest images (images/hardest_TASK.png).

    shots, repeats, normalize: see `dnc.analyze`.
    train_examples: how many images that were trained on are measured as well, into measurements/train/; 0 for none.
    lidar_examples: how many training images LiDAR takes; 0 leaves it out.
    """

    shots: Sequence[int] = (1, 5, 10, 20, 50, 100)
    repeats: int = 20
    normalize: bool = False
    train_examples: int = 0
    lidar_examples: int = 0

    def check(self, training: Training) -> None:
        if not training.data.class_names:
            raise ValueError("the held-out images have no labels, so collapse cannot be measured: name some that have")
        example: Any = training.data.source()[0]
        if self.train_examples and example.get("labels") == {}:
            raise ValueError(f"train_examples={self.train_examples}: the training images have no labels; set it to 0")
        if self.lidar_examples > (examples := len(training.data.source())):
            raise ValueError(f"lidar_examples={self.lidar_examples}: there are {examples} training examples")
        most = max(self.shots, default=0)
        for task, labels in training.data.held_out_labels().items():
            names = training.data.class_names[task]
            counts = np.bincount(labels, minlength=len(names))
            if (fewest := int(counts.min())) <= most:
                raise ValueError(
                    f"shots={tuple(self.shots)}: {most} shots need {most + 1} held-out images of every class, and "
                    f"{names[int(counts.argmin())]!r} of task {task!r} has {fewest}: give shots of at most "
                    f"{fewest - 1}, or hold out more images"
                )

    def start(self, subject: Subject) -> Measure:
        training, folder = subject.training, subject.workdir / "measurements"
        trained_on = training.data.training_images(self.train_examples) if self.train_examples else None
        embed_views = (
            make_view_embedder(training, subject.graphdef, subject.mesh, self.lidar_examples)
            if self.lidar_examples
            else None
        )

        def measure(state: TrainState, step: int) -> dict[str, float]:
            started, name = time.perf_counter(), f"step_{step:08d}.json"
            views = None if embed_views is None else partial(embed_views, state.params, state.rest)
            held_out = partial(subject.held_out_features, state, step)
            last = step == training.total_steps
            measured = self._analyze(subject, step, held_out, subject.held_out[1], views, queries=last, guarantees=last)
            measured = dataclasses.replace(measured, left_out=subject.left_out)
            if distributed.is_lead():
                if last:
                    thumbnails.save_sheets(measured, subject.held_out[0], subject.workdir / "images")
                measured.save(folder / name)
            if trained_on is not None:
                images, labels = trained_on
                own = self._analyze(subject, step, partial(subject.features, state, step, images), labels, queries=last)
                if distributed.is_lead():
                    own.save(folder / "train" / name)
            directional = ", ".join(
                f"{task} {entry.mean_directional_cdnv:.3g}" for task, entry in measured.tasks.items()
            )
            seconds = time.perf_counter() - started
            subject.say(f"step {step}: directional CDNV {directional}  (measured in {seconds:.1f} s)")
            return _scalars(measured)

        return measure

    def is_recorded(self, workdir: epath.Path, step: int) -> bool:
        folders = ("measurements", "measurements/train") if self.train_examples else ("measurements",)
        are_whole = [_is_whole(workdir / folder / f"step_{step:08d}.json") for folder in folders]
        return all(are_whole)

    def _analyze(
        self,
        subject: Subject,
        step: int,
        features: Callable[[], np.ndarray],
        labels: Mapping[str, np.ndarray],
        views: Callable[[], np.ndarray] | None = None,
        *,
        queries: bool,
        guarantees: bool = False,
    ) -> Record:
        """What a file holds of the step; nan where the features allow no number. Whole in the lead alone."""
        training = subject.training
        epoch = step / training.steps_per_epoch
        try:
            analysis = analyze(
                features(),
                dict(labels),
                class_names={task: list(names) for task, names in training.data.class_names.items()},
                normalize=self.normalize,
                shots=tuple(self.shots),
                repeats=self.repeats,
                seed=training.config.seed,
                step=step,
                epoch=epoch,
                mesh=subject.mesh,
                views=None if views is None else views(),
                guarantees=guarantees,
                queries=queries,
            )
            for task in analysis.tasks.values():
                _ = task.geometry  # by all processes together; the rest is the lead's alone
            if distributed.is_lead():
                return analysis.record
        except Exception as error:  # a collapsed encoder can fail in any way
            if must_end_run(error):
                raise
            subject.say(f"step {step}: collapse could not be measured and is recorded as missing: {error}")
        tasks = {
            task: {"classes": names, "shots": list(self.shots), "repeats": self.repeats}
            for task, names in training.data.class_names.items()
        }
        return Record(
            {task: TaskRecord.from_json(entry) for task, entry in tasks.items()},
            step=step,
            epoch=epoch,
            samples=len(next(iter(labels.values()))),
            normalized=self.normalize,
            seed=training.config.seed,
        )


def _scalars(measured: Record) -> dict[str, float]:
    """What a log holds of a record: collapse and few-shot error of every task."""
    scalars = {}
    for name, task in measured.tasks.items():
        scalars[f"cdnv_{name}"] = task.mean_cdnv
        scalars[f"directional_cdnv_{name}"] = task.mean_directional_cdnv
        errors = zip(task.shots.tolist(), task.error.mean.tolist(), strict=True)
        scalars |= {f"few_shot_error_{name}_{shots}": error for shots, error in errors}
    return scalars


def _is_whole(path: epath.Path) -> bool:
    try:
        record.load(path)
    except FileNotFoundError:
        return False
    except ValueError:
        path.replace(path.with_name(f"damaged_{path.name}"))
        return False
    return True


@dataclasses.dataclass(frozen=True)
class OnlineProbeAccuracy(Measurement):
    """Accuracies of the online probe's classifiers on the held-out images: `online_test_accuracy_TASK`."""

    def start(self, subject: Subject) -> Measure:
        @jax.jit
        def accuracies(params: nnx.State, rest: nnx.State, features: jax.Array, labels: Any) -> dict[str, jax.Array]:
            network = nnx.merge(subject.graphdef, params, rest)
            return network.classifiers.accuracies(features, labels)

        def measure(state: TrainState, step: int) -> dict[str, float]:
            features, labels = subject.held_out_features(state, step), dict(subject.held_out[1])
            measured = accuracies(state.params, state.rest, features, labels)
            return {f"online_test_accuracy_{task}": float(accuracy) for task, accuracy in measured.items()}

        return measure


MEASUREMENTS: dict[str, Callable[..., Measurement]] = {"collapse": Collapse, "online_probe": OnlineProbeAccuracy}


def make_measurements(config: Config) -> dict[str, Measurement]:
    """What `config.measure` lists, by its labels; with an online probe (`config.probe.online`) its accuracies too."""
    listed = {}
    for label, options in plain(config.measure).items():
        if not isinstance(options, dict):
            raise ValueError(
                f"config.measure.{label}={options!r}: give measurements, each a dict of its options; those of collapse "
                f"are set as in config.measure.collapse.{label}"
            )
        listed[label] = {"name": label, **options}
    if config.probe.online:
        listed.setdefault("online_probe", {"name": "online_probe"})
    return {label: construct(f"measure.{label}", options, MEASUREMENTS) for label, options in listed.items()}


def check_measurements(measurements: Mapping[str, Measurement], training: Training) -> None:
    """Raises ValueError, naming the entry of the config, where one cannot measure the run."""
    for label, measurement in measurements.items():
        try:
            measurement.check(training)
        except ValueError as error:
            raise ValueError(f"config.measure.{label}: {error}") from error
