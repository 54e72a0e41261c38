"""What is measured of a run: objects that turn (state, step) into numbers, at steps 0, 1, 2, 5, 10, ... and the last.

A config lists them by a label of its own choosing; `name`, the label by default, is one of MEASUREMENTS or the user's
own "package.module:Class", and the other entries are its options:

    config.measure = dict(
        collapse=dict(shots=(1, 5, 10), repeats=20, normalize=True, train_examples=0, lidar_examples=0),
        weights=dict(name="my_methods:WeightNorm", order=2),
    )

The numbers that a measurement returns are logged with the step's metrics; what else it makes, it writes itself.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from dnc import distributed
from dnc.analysis.analyze import Analysis, analyze
from dnc.training.build import Config, Training, construct, plain
from dnc.training.run_encoder import make_embedder, make_view_embedder
from dnc.training.state import TrainState
from dnc.training.window import diverged

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
        last_good_step: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.training, self.graphdef, self.mesh, self.workdir, self.say = training, graphdef, mesh, workdir, say
        self._last_good_step = last_good_step
        self._latest: tuple[int, np.ndarray] | None = None

    @functools.cached_property
    def held_out(self) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """The held-out images uint8 [n, h, w, 3], and their labels [n] for each task."""
        return self.training.data.held_out()

    def held_out_features(self, state: TrainState, step: int) -> np.ndarray:
        """Features [n, d] of the held-out images."""
        if self._latest is None or self._latest[0] != step:
            self._latest = step, self.features(state, step, self.held_out[0])
        return self._latest[1]

    def features(self, state: TrainState, step: int, images: np.ndarray) -> np.ndarray:
        """Features [n, d] of images uint8 [n, h, w, 3], computed by all processes together.

        Raises NonFiniteLossError where one is not finite.
        """
        features = self._embed(state.params, state.rest, images)
        if not np.all(np.isfinite(features)):
            raise diverged(step, "the features are not finite", self._last_good_step())
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


@dataclasses.dataclass(frozen=True)
class Collapse(Measurement):
    """`dnc.analyze` of the held-out images, saved as measurements/step_*.json: what the report is made of.

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
            started = time.perf_counter()
            features = subject.held_out_features(state, step)
            views = None if embed_views is None else embed_views(state.params, state.rest)
            analysis = self._analyze(subject, step, features, subject.held_out[1], folder, views)
            if trained_on is not None:
                images, labels = trained_on
                self._analyze(subject, step, subject.features(state, step, images), labels, folder / "train")
            directional = ", ".join(
                f"{name} {float(np.nanmean(task.directional_cdnv)):.3g}" for name, task in analysis.tasks.items()
            )
            seconds = time.perf_counter() - started
            subject.say(f"step {step}: directional CDNV {directional}  (measured in {seconds:.1f} s)")
            return {}

        return measure

    def _analyze(
        self,
        subject: Subject,
        step: int,
        features: np.ndarray,
        labels: Mapping[str, np.ndarray],
        folder: epath.Path,
        views: np.ndarray | None = None,
    ) -> Analysis:
        analysis = analyze(
            features,
            dict(labels),
            class_names={task: list(names) for task, names in subject.training.data.class_names.items()},
            normalize=self.normalize,
            shots=tuple(self.shots),
            repeats=self.repeats,
            seed=subject.training.config.seed,
            step=step,
            epoch=step / subject.training.steps_per_epoch,
            mesh=subject.mesh,
            views=views,
        )
        for task in analysis.tasks.values():
            _ = task.geometry  # by all processes together; the rest is the lead's alone
        if distributed.is_lead():
            analysis.save(folder / f"step_{step:08d}.json")
        return analysis


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
    listed = {label: {"name": label, **options} for label, options in plain(config.measure).items()}
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
