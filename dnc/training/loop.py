"""Train, measure and checkpoint: the life of one run, from an empty workdir to its report."""

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from dnc import distributed
from dnc.analysis.analyze import Analysis, analyze
from dnc.data.pipeline import ReadOptions, batches
from dnc.objectives import OnlineProbe
from dnc.objectives.image_text import ImageText
from dnc.report.contact_sheet import save_contact_sheet
from dnc.report.html import write_report
from dnc.training.build import Config, Training, build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.interruption import Interruption
from dnc.training.run_encoder import make_embedder, make_view_embedder
from dnc.training.state import TrainState
from dnc.training.step import views_difference
from dnc.training.window import INPUT_BOUND, Window, diverged
from dnc.training.workdir import claimed, record_run, refuse_other_config
from dnc.training.writers import MetricWriter, Progress, clock, environment


def log_spaced_steps(total: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, ... and the last step."""
    series = (base * 10**power for power in itertools.count() for base in (1, 2, 5))
    return [0, *itertools.takewhile(lambda step: step < total, series), total]


def train_and_evaluate(config: Config, workdir: epath.PathLike, mesh: Mesh | None = None) -> Analysis:
    """Runs a config to its end, or on to its end if `workdir` holds an interrupted run of the same config.

    Leaves in workdir: config.json, data.json and environment.json, metrics.jsonl, timing.jsonl and tensorboard/,
    checkpoints/, measurements/step_*.json (at steps 0, 1, 2, 5, 10, ... and the last; where measure.train_examples asks
    for them, of training images in measurements/train/), images/ and report/index.html. Returns the last measurement.

    Raises:
      ValueError, before any work: a config that does not fit itself, the devices, or the workdir's earlier config.
      BlockingIOError: another process trains in this workdir.
      NonFiniteLossError: names the step; the newest checkpoint is from before it.
      InterruptedError: after SIGTERM, with everything saved; call again to go on.
    """
    workdir = epath.Path(workdir)
    mesh = distributed.make_mesh() if mesh is None else mesh
    last = run(prepare(config, workdir, mesh), workdir, mesh)
    if last is None:
        raise InterruptedError(f"stopped before its last step; everything is saved in {workdir}")
    return last


def prepare(config: Config, workdir: epath.Path, mesh: Mesh) -> Training:
    """All checks of `train_and_evaluate`; a config that is refused leaves nothing behind."""
    training = build(config)
    if not training.data.class_names:
        raise ValueError("the held-out images have no labels, so collapse cannot be measured: name some that have")
    example: Any = training.data.source()[0]
    if config.measure.train_examples and example.get("labels") == {}:
        raise ValueError(
            f"measure.train_examples={config.measure.train_examples}: the training images have no labels; set it to 0"
        )
    if isinstance(training.objective, OnlineProbe) and example.get("labels") == {}:
        raise ValueError("probe.online=True learns from labels, and the training images have none: set it to False")
    _check_shots(training)
    distributed.check_divisible(mesh, config.train.batch_size, config.train.accumulate)
    refuse_other_config(workdir, config)
    _check_views(training)
    return training


def run(
    training: Training,
    workdir: epath.Path,
    mesh: Mesh,
    *,
    stop_after: float | None = None,
    profile: tuple[int, int] | None = None,
) -> Analysis | None:
    """From the workdir's last checkpoint, or from nothing, to the report; see `train_and_evaluate`.

    stop_after: minutes until the run saves itself and stops.
    profile: the steps after which a trace of the program, in workdir/profile, begins and ends.
    Returns None when it stopped before the last step.
    """
    started = time.perf_counter()
    measured = log_spaced_steps(training.total_steps)
    with ExitStack() as held:
        _claim(workdir, training, held)
        interruption = held.enter_context(Interruption(stop_after))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=measured)
        held.callback(checkpoints.close)
        last = _Run(training, mesh, workdir, checkpoints).train(measured, interruption, profile)
    if last is not None and distributed.is_lead():
        print(last.summary())
        page = write_report(os.fspath(workdir), os.fspath(workdir / "report"))
        print(f"Report: {page} (training, measuring and report: {clock(time.perf_counter() - started)} min)")
    return last


def _claim(workdir: epath.Path, training: Training, held: ExitStack) -> None:
    """The lead takes the folder; where that fails, no process stays behind waiting for it."""
    refusal = None
    if distributed.is_lead():
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(claimed(workdir))
            record_run(workdir, training)
        except OSError as error:
            refusal = error
    if distributed.any_process(refusal is not None):
        raise refusal or BlockingIOError(f"workdir={workdir} was refused to the first process: see what it says")


class _Run:
    """The objects that live as long as the process, so that the loop itself reads plainly."""

    def __init__(self, training: Training, mesh: Mesh, workdir: epath.Path, checkpoints: Checkpoints) -> None:
        self.training, self.mesh, self.workdir, self.checkpoints = training, mesh, workdir, checkpoints
        self.config, total = training.config, training.total_steps
        self.images, self.labels = training.data.held_out()
        count = self.config.measure.train_examples
        self.seen = training.data.training_images(count) if count else None
        graphdef, abstract = training.abstract(mesh)
        restored = checkpoints.restore_newest(abstract)
        self.state: TrainState = training.init(mesh) if restored is None else restored.state
        self.start = int(self.state.step)
        self.window = Window(total, self.config.train.batch_size, restored.record["pending"] if restored else ())
        self.step = training.step(graphdef)
        self.embed = make_embedder(graphdef, mesh)
        lidar = self.config.measure.get("lidar_examples", 0)
        self.embed_views = make_view_embedder(training, graphdef, mesh, lidar) if lidar else None
        self.online_accuracies = jax.jit(
            lambda params, rest, *held_out: nnx.merge(graphdef, params, rest).classifiers.accuracies(*held_out)
        )
        self.tracing = False
        self.writer = MetricWriter(workdir, self.start)
        self.progress = Progress(total, self.start)
        self.progress.say(_headline(training, mesh, self.start))
        for step in restored.damaged if restored else ():
            self.progress.say(f"the checkpoint of step {step} is damaged: put into damaged_checkpoints/")
        if self.start == total:
            self.progress.say("this run is complete: measuring its last step again")
        if distributed.is_lead():
            sheet = workdir / "images" / "contact_sheet.png"
            save_contact_sheet(self.images, self.labels, training.data.class_names, sheet)

    def train(
        self, measured: list[int], interruption: Interruption, profile: tuple[int, int] | None
    ) -> Analysis | None:
        """From the restored step to the last; measures and saves on the way. None when interrupted."""
        step, total, train = self.start, self.training.total_steps, self.config.train
        analysis = None
        if step in measured:
            with self.window.spent("measurement"):
                analysis, _ = self._measure(step)
        if self.checkpoints.latest_step() is None:
            self._save(0)
        examples = self._batches()
        while step < total:
            self._profile(step, profile)
            with self.window.spent("input"):
                numbers, batch = next(examples)
            self.state, metrics = self.step(self.state, batch)
            self.window.add(metrics, numbers)
            step += 1
            saved = step in measured or step % train.checkpoint_every == 0
            logged = saved or step % train.log_every == 0
            if logged:
                self._log(step)
            if step in measured:
                with self.window.spent("measurement"):
                    analysis, online = self._measure(step)
                self.writer.write(step, online)
            if saved:
                self._save(step)
            if step < total and (logged or distributed.is_alone()) and interruption.requested():
                self._save(step)
                self.progress.say(f"step {step}: stopped by {interruption.reason}; saved, start again to go on")
                analysis = None
                break
        self._profile(total, profile)
        self.writer.close()
        self.progress.close()
        return analysis

    def _batches(self) -> Iterator[tuple[np.ndarray, Any]]:
        size = self.config.train.batch_size
        rows = distributed.local_rows(self.mesh, size)
        host = batches(self.training.data.source(), size, self.config.seed, self.start, rows, self.training.reading)
        return ((numbers, distributed.shard_batch(self.mesh, batch)) for numbers, batch in host)

    def _save(self, step: int) -> None:
        with self.window.spent("checkpoint"):
            pending = self.window.pending(step, self.checkpoints.latest_step())
            record = {"pending": pending, "config": json.loads(self.config.to_json()), "environment": environment()}
            self.checkpoints.save(step, self.state, record)

    def _log(self, step: int) -> None:
        metrics = self.window.metrics(step, self.checkpoints.latest_step())
        metrics["learning_rate"] = float(np.asarray(self.training.learning_rate(step - 1)))
        metrics["epoch"] = step / self.training.steps_per_epoch
        timing = self.window.timing()
        self.writer.write(step, metrics, timing)
        self.progress.update(step, metrics, timing, self.window.seconds_left(step))
        if timing["input_share"] > INPUT_BOUND:
            self.progress.say(f"step {step}: {timing['input_share']:.0%} of the time went into waiting for examples")

    def _profile(self, step: int, between: tuple[int, int] | None) -> None:
        """Begins the trace after step `between[0]` and ends it after `between[1]`, or with the run."""
        if between is None or not distributed.is_lead():
            return
        if not self.tracing and max(between[0], self.start) == step < between[1]:
            jax.profiler.start_trace(os.fspath(self.workdir / "profile"), create_perfetto_trace=True)
            self.tracing = True
        elif self.tracing and step in (between[1], self.training.total_steps):
            jax.block_until_ready(self.state.step)
            jax.profiler.stop_trace()
            self.tracing = False
            self.progress.say(f"profile of the steps to {step}: {self.workdir / 'profile'}")

    def _measure(self, step: int) -> tuple[Analysis, dict[str, float]]:
        """The analysis of the held-out features, and what the online probe, if there is one, makes of them."""
        started = time.perf_counter()
        features = self._features(step, self.images)
        folder = self.workdir / "measurements"
        views = None if self.embed_views is None else self.embed_views(self.state.params, self.state.rest)
        analysis = self._analyze(step, features, self.labels, folder, views)
        if self.seen is not None:
            images, labels = self.seen
            self._analyze(step, self._features(step, images), labels, folder / "train")
        directional = ", ".join(
            f"{name} {float(np.nanmean(task.directional_cdnv)):.3g}" for name, task in analysis.tasks.items()
        )
        seconds = time.perf_counter() - started
        self.progress.say(f"step {step}: directional CDNV {directional}  (measured in {seconds:.1f} s)")
        if not isinstance(self.training.objective, OnlineProbe):
            return analysis, {}
        accuracies = self.online_accuracies(self.state.params, self.state.rest, features, dict(self.labels))
        return analysis, {f"online_test_accuracy_{task}": float(one) for task, one in accuracies.items()}

    def _features(self, step: int, images: np.ndarray) -> np.ndarray:
        features = self.embed(self.state.params, self.state.rest, images)
        if not np.all(np.isfinite(features)):
            raise diverged(step, "the features are not finite", self.checkpoints.latest_step())
        return features

    def _analyze(
        self,
        step: int,
        features: np.ndarray,
        labels: Mapping[str, np.ndarray],
        folder: epath.Path,
        views: np.ndarray | None = None,
    ) -> Analysis:
        options = self.config.measure
        analysis = analyze(
            features,
            dict(labels),
            class_names={task: list(names) for task, names in self.training.data.class_names.items()},
            normalize=options.normalize,
            shots=tuple(options.shots),
            repeats=options.repeats,
            seed=self.config.seed,
            step=step,
            epoch=step / self.training.steps_per_epoch,
            mesh=self.mesh,
            views=views,
        )
        for task in analysis.tasks.values():
            _ = task.geometry  # by all processes together; the rest is the lead's alone
        if distributed.is_lead():
            analysis.save(folder / f"step_{step:08d}.json")
        return analysis


def _check_shots(training: Training) -> None:
    """Every class needs one held-out image more than there are shots."""
    most = max(training.config.measure.shots, default=0)
    for task, labels in training.data.held_out_labels().items():
        names = training.data.class_names[task]
        counts = np.bincount(labels, minlength=len(names))
        if (least := int(counts.min())) <= most:
            raise ValueError(
                f"measure.shots={tuple(training.config.measure.shots)}: {most} shots need {most + 1} held-out images "
                f"of every class, and {names[int(counts.argmin())]!r} of task {task!r} has {least}: give shots of at "
                f"most {least - 1}, or hold out more images"
            )


def _check_views(training: Training) -> None:
    """Two views of an example must differ, or the objective is trivial; captions must be as long as it says."""
    size, once, key = training.config.train.batch_size, ReadOptions(prefetch=1), root_key(training.config)
    _, batch = next(batches(training.data.source(), size, training.config.seed, reading=once))
    objective = training.objective.objective if isinstance(training.objective, OnlineProbe) else training.objective
    if isinstance(objective, ImageText):
        objective.captions(jax.eval_shape(training.data.make_views, batch, key))
    if float(views_difference(training.data.make_views, batch, key)) == 0.0:
        raise ValueError("The two views of every example are the same picture: turn on augmentation or views='render'.")


def _headline(training: Training, mesh: Mesh, start: int) -> str:
    model = {"name": "resnet", **training.config.model}
    settings = ", ".join(f"{name}={value}" for name, value in model.items() if name != "name")
    return (
        f"{training.config.objective.name}: {model['name']}, {settings}; "
        f"steps {start} to {training.total_steps} on {mesh.size} {mesh.devices.flat[0].platform} device(s)"
    )
