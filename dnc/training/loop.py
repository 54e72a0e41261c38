"""Train, measure and checkpoint: the life of one run, from an empty workdir to its report."""

import dataclasses
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
from jax.sharding import Mesh

from dnc import distributed, record
from dnc.data.pipeline import ReadOptions, batches
from dnc.record import Record
from dnc.report.contact_sheet import save_contact_sheet
from dnc.report.html import write_report
from dnc.training.build import Config, Training, build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.interruption import Interruption
from dnc.training.measurements import Measurement, Subject, check_measurements, make_measurements
from dnc.training.state import TrainState
from dnc.training.step import views_difference
from dnc.training.window import INPUT_BOUND, Window
from dnc.training.workdir import claimed, record_run, refuse_other_config
from dnc.training.writers import MetricWriter, Progress, clock, environment

_HEADLINE = ("depth", "width", "patch_size", "dtype")  # entries of config.model in the first line of the log


def log_spaced_steps(total: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, ... and the last step."""
    series = (base * 10**power for power in itertools.count() for base in (1, 2, 5))
    return [0, *itertools.takewhile(lambda step: step < total, series), total]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has passed every check: what it is made of, and what is measured of it."""

    training: Training
    measurements: Mapping[str, Measurement]


def train_and_evaluate(config: Config, workdir: epath.PathLike, mesh: Mesh | None = None) -> Record:
    """Runs a config to its end, or on to its end if `workdir` holds an interrupted run of the same config.

    Leaves in workdir: config.json, data.json and environment.json, metrics.jsonl, timing.jsonl and tensorboard/,
    checkpoints/, measurements/step_*.json (at steps 0, 1, 2, 5, 10, ... and the last; where train_examples asks
    for them, of training images in measurements/train/), images/ and report/index.html. Returns the last measurement.

    Raises:
      ValueError, before any work: a config that is inconsistent, or does not fit the devices or the workdir's earlier
        config.
      BlockingIOError: another process trains in this workdir.
      NonFiniteLossError: names the step; the newest checkpoint is from before it.
      InterruptedError: after SIGTERM, with everything saved; call again to go on.
    """
    workdir = epath.Path(workdir)
    mesh = distributed.make_mesh() if mesh is None else mesh
    plan = prepare(config, workdir, mesh)
    if not run(plan, workdir, mesh):
        raise InterruptedError(f"stopped before its last step; everything is saved in {workdir}")
    return record.load(_measurement(workdir, plan.training.total_steps))


def prepare(config: Config, workdir: epath.Path, mesh: Mesh) -> Plan:
    """All checks of `train_and_evaluate`; a config that is refused leaves nothing behind."""
    training, measurements = build(config), make_measurements(config)
    check_measurements(measurements, training)
    training.objective.check(_abstract_views(training))
    distributed.check_divisible(mesh, config.train.batch_size, config.train.accumulate)
    refuse_other_config(workdir, config)
    _check_views_differ(training)
    return Plan(training, measurements)


def run(
    plan: Plan,
    workdir: epath.Path,
    mesh: Mesh,
    *,
    stop_after: float | None = None,
    profile: tuple[int, int] | None = None,
) -> bool:
    """From the workdir's last checkpoint, or from nothing, to the report; see `train_and_evaluate`.

    stop_after: minutes until the run saves itself and stops.
    profile: the steps after which a trace of the program, in workdir/profile, begins and ends.
    Returns whether it came to the last step.
    """
    started = time.perf_counter()
    total = plan.training.total_steps
    measured = log_spaced_steps(total)
    with ExitStack() as held:
        _claim(workdir, plan.training, held)
        interruption = held.enter_context(Interruption(stop_after))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=measured)
        held.callback(checkpoints.close)
        complete = _Run(plan, mesh, workdir, checkpoints).train(measured, interruption, profile)
    if complete and distributed.is_lead() and _measurement(workdir, total).exists():
        print(record.load(_measurement(workdir, total)).summary())
        page = write_report(os.fspath(workdir), os.fspath(workdir / "report"))
        print(f"Report: {page} (training, measuring and report: {clock(time.perf_counter() - started)} min)")
    return complete


def _measurement(workdir: epath.Path, step: int) -> epath.Path:
    return workdir / "measurements" / f"step_{step:08d}.json"


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
        raise refusal or BlockingIOError(f"workdir={workdir} could not be locked by the lead process; see its log")


class _Run:
    """The objects that live as long as the process, so that the loop itself reads plainly."""

    def __init__(self, plan: Plan, mesh: Mesh, workdir: epath.Path, checkpoints: Checkpoints) -> None:
        training = plan.training
        self.training, self.mesh, self.workdir, self.checkpoints = training, mesh, workdir, checkpoints
        self.config, total = training.config, training.total_steps
        graphdef, abstract = training.abstract(mesh)
        restored = checkpoints.restore_newest(abstract)
        self.state: TrainState = training.init(mesh) if restored is None else restored.state
        self.start = int(self.state.step)
        self.window = Window(total, self.config.train.batch_size, restored.record["pending"] if restored else ())
        self.step = training.step(graphdef)
        self.tracing = False
        self.writer = MetricWriter(workdir, self.start)
        self.progress = Progress(total, self.start)
        self.progress.say(_headline(training, mesh, self.start))
        for step in restored.damaged if restored else ():
            self.progress.say(f"the checkpoint of step {step} is damaged: put into damaged_checkpoints/")
        if self.start == total:
            self.progress.say("this run is complete: measuring its last step again")
        subject = Subject(training, graphdef, mesh, workdir, self.progress.say, checkpoints.latest_step)
        self.measures = [measurement.start(subject) for measurement in plan.measurements.values()]
        if distributed.is_lead() and training.data.class_names:
            sheet = workdir / "images" / "contact_sheet.png"
            save_contact_sheet(*subject.held_out, training.data.class_names, sheet)

    def train(self, measured: list[int], interruption: Interruption, profile: tuple[int, int] | None) -> bool:
        """From the restored step to the last; measures and saves on the way. Returns whether it got there."""
        step, total, train = self.start, self.training.total_steps, self.config.train
        if step in measured:
            self._measure(step)
        if self.checkpoints.latest_step() is None:
            self._save(0)
        examples = self._batches()
        complete = True
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
                self.writer.write(step, self._measure(step))
            if saved:
                self._save(step)
            if step < total and (logged or distributed.is_alone()) and interruption.requested():
                self._save(step)
                self.progress.say(f"step {step}: stopped by {interruption.reason}; saved, start again to go on")
                complete = False
                break
        self._profile(total, profile)
        self.writer.close()
        self.progress.close()
        return complete

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

    def _measure(self, step: int) -> dict[str, Any]:
        with self.window.spent("measurement"):
            return {name: value for measure in self.measures for name, value in measure(self.state, step).items()}


def _abstract_views(training: Training) -> Any:
    """The shapes of what the objective learns from."""
    size = training.config.train.batch_size
    example = jax.tree.map(np.asarray, training.data.source()[0])
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), example)
    return jax.eval_shape(training.data.make_views, batch, root_key(training.config))


def _check_views_differ(training: Training) -> None:
    """Two views of an example must differ, or the objective is trivial."""
    size, once = training.config.train.batch_size, ReadOptions(prefetch=1)
    _, batch = next(batches(training.data.source(), size, training.config.seed, reading=once))
    if float(views_difference(training.data.make_views, batch, root_key(training.config))) == 0.0:
        raise ValueError("The two views of every example are the same picture: turn on augmentation or views='render'.")


def _headline(training: Training, mesh: Mesh, start: int) -> str:
    config = training.config
    settings = ", ".join(f"{key}={config.model[key]}" for key in _HEADLINE if key in config.model)
    return (
        f"{config.objective.name}: {config.model.name}, {settings}; "
        f"steps {start} to {training.total_steps} on {mesh.size} {mesh.devices.flat[0].platform} device(s)"
    )
