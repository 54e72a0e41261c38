"""Train, measure and checkpoint: the life of one run, from an empty workdir to its report."""

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from dnc import distributed, record
from dnc.data.pipeline import ReadOptions, batches
from dnc.record import Record
from dnc.report.contact_sheet import save_contact_sheet
from dnc.report.html import write_report
from dnc.training.build import Config, Training, build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.interruption import Interruption, is_lost_peer, must_end_run
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
    graphdef: nnx.GraphDef
    abstract: TrainState  # shapes and shardings


def train_and_evaluate(config: Config, workdir: epath.PathLike, mesh: Mesh | None = None) -> Record | None:
    """Runs a config to its end, or on to its end if `workdir` holds an interrupted run of the same config.

    Leaves in workdir: config.json, data.json and environment.json, metrics.jsonl, timing.jsonl and tensorboard/,
    checkpoints/, measurements/step_*.json (at steps 0, 1, 2, 5, 10, ... and the last; where train_examples asks
    for them, of training images in measurements/train/), images/ and report/index.html. Returns the last measurement;
    None, and leaves no report, where config.measure lists no collapse.

    Raises:
      ValueError, before any work: a config that is inconsistent, or does not fit the devices or the workdir's earlier
        config.
      BlockingIOError: another process trains in this workdir.
      NonFiniteLossError: names the step; the newest checkpoint is from before it.
      InterruptedError: after SIGTERM or Ctrl-C, with everything saved; call again to go on.
    """
    workdir = epath.Path(workdir)
    mesh = distributed.make_mesh() if mesh is None else mesh
    plan = prepare(config, workdir, mesh)
    if not run(plan, workdir, mesh):
        raise InterruptedError(f"stopped before its last step; everything is saved in {workdir}")
    last = _measurement(workdir, plan.training.total_steps)
    return record.load(last) if last.exists() else None


def prepare(config: Config, workdir: epath.Path, mesh: Mesh) -> Plan:
    """All checks of `train_and_evaluate`; a config that is refused leaves nothing behind."""
    training, measurements = build(config), make_measurements(config)
    check_measurements(measurements, training)
    training.objective.check(_abstract_views(training))
    distributed.check_divisible(mesh, config.train.batch_size, config.train.accumulate)
    refuse_other_config(workdir, config)
    graphdef, abstract = training.abstract(mesh)
    _check_views_differ(training)
    return Plan(training, measurements, graphdef, abstract)


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
    with ExitStack() as held:
        _as_lead(workdir, lambda: _claim(workdir, held))
        interruption = held.enter_context(Interruption(stop_after))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=log_spaced_steps(total))
        # Closing finishes the last save, for which a process that is gone would be awaited.
        held.push(lambda _, error, __: None if error and is_lost_peer(error) else checkpoints.close())
        complete = _Run(plan, mesh, workdir, checkpoints).train(interruption, profile)
    if complete and distributed.is_lead():
        _report(workdir, _measurement(workdir, total))
        print(f"Training, measuring and report: {clock(time.perf_counter() - started)} min")
    return complete


def _report(workdir: epath.Path, last: epath.Path) -> None:
    """Writes the page, then prints its numbers; what a number does to either is said, and ends nothing."""
    if not last.exists():
        print("No report: config.measure lists no collapse")
        return
    try:
        page = write_report(os.fspath(workdir), os.fspath(workdir / "report"))
        print(f"Report: {page}")
        print(record.load(last).summary())
    except OSError:
        raise
    except Exception as error:  # the run is complete and its numbers are on disk
        print(f"warning: not everything measured could be shown ({type(error).__name__}: {error}); it is all in {last}")


def _measurement(workdir: epath.Path, step: int) -> epath.Path:
    return workdir / "measurements" / f"step_{step:08d}.json"


def _claim(workdir: epath.Path, held: ExitStack) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    held.enter_context(claimed(workdir))


def _as_lead(workdir: epath.Path, act: Callable[[], Any]) -> Any:
    """What the lead's action on the folder returns; where it fails, no process stays behind waiting for the lead."""
    refusal = result = None
    if distributed.is_lead():
        try:
            result = act()
        except OSError as error:
            refusal = error
    if distributed.any_process(refusal is not None):
        raise refusal or BlockingIOError(f"workdir={workdir} could not be locked by the lead process; see its log")
    return result


class _Run:
    """The objects that live as long as the process, so that the loop itself reads plainly."""

    def __init__(self, plan: Plan, mesh: Mesh, workdir: epath.Path, checkpoints: Checkpoints) -> None:
        training, total = plan.training, plan.training.total_steps
        self.training, self.mesh, self.workdir, self.checkpoints = training, mesh, workdir, checkpoints
        self.config, self.plan = training.config, plan
        restored = checkpoints.restore_newest(plan.abstract)
        self.is_new = restored is None
        self.state: TrainState = training.init(mesh) if restored is None else restored.state
        self.start = int(self.state.step)
        self.measured = log_spaced_steps(total)
        self.window = Window(total, self.config.train.batch_size, restored.record["pending"] if restored else ())
        self.step = training.step(plan.graphdef)
        self.tracing = False
        self.progress = Progress(total, self.start)
        self.progress.say(_headline(training, mesh, self.start))
        for reason in restored.damaged.values() if restored else ():
            self.progress.say(f"{reason}. It is put into damaged_checkpoints/")
        subject = Subject(training, plan.graphdef, mesh, workdir, self.progress.say)
        self.measures = {label: measurement.start(subject) for label, measurement in plan.measurements.items()}
        for name in _as_lead(workdir, lambda: record_run(workdir, training)) or ():
            self.progress.say(f"{name} was missing or damaged: written again")
        logged = [step for step in range(1, self.start + 1) if self._is_logged(step)]
        self.writer = MetricWriter(workdir, -1 if self.is_new else self.start, logged)
        if lost := self.writer.lost:
            self.progress.say(f"metrics.jsonl has lost {len(lost)} of its lines, of steps {lost[0]} to {lost[-1]}")
        if distributed.is_lead() and training.data.class_names:
            sheet = workdir / "images" / "contact_sheet.png"
            save_contact_sheet(*subject.held_out, training.data.class_names, sheet)

    def train(self, interruption: Interruption, profile: tuple[int, int] | None) -> bool:
        """From the restored step to the last; measures and saves on the way. Returns whether it got there."""
        step, total = self.start, self.training.total_steps
        examples = self._batches()
        with self._compiling(examples) as examples:
            if self.is_new:
                self.writer.write(0, self._measure(0, self.state))
                self._save(0)
            else:
                self._measure_again()
        complete = True
        while step < total:
            self._profile(step, profile)
            with self.window.spent("input"):
                numbers, batch = next(examples)
            self.state, metrics = self.step(self.state, batch)
            self.window.add(metrics, numbers)
            step += 1
            if logged := self._is_logged(step):
                self._log(step)
            if step in self.measured:
                self.writer.write(step, self._measure(step, self.state))
            if self._is_saved(step):
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

    @contextmanager
    def _compiling(self, examples: Iterator[Any]) -> Iterator[Iterator[Any]]:
        """The examples, while another thread compiles the step for the first of them.

        What fails there fails again when the step is called, and is reported then.
        """
        if self.start == self.training.total_steps:
            yield examples
            return
        first = next(examples)

        def compile_step() -> None:
            with suppress(Exception):
                self.step.lower(self.state, first[1]).compile()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(compile_step)
            yield itertools.chain([first], examples)

    def _is_saved(self, step: int) -> bool:
        return step in self.measured or step % self.config.train.checkpoint_every == 0

    def _is_logged(self, step: int) -> bool:
        return self._is_saved(step) or step % self.config.train.log_every == 0

    def _batches(self) -> Iterator[tuple[np.ndarray, Any]]:
        size = self.config.train.batch_size
        rows = distributed.local_rows(self.mesh, size)
        host = batches(self.training.data.source(), size, self.config.seed, self.start, rows, self.training.reading)
        return ((numbers, distributed.shard_batch(self.mesh, batch)) for numbers, batch in host)

    def _save(self, step: int) -> None:
        with self.window.spent("checkpoint"):
            pending = self.window.pending(step, self.checkpoints.latest_step())
            record = {"pending": pending, "config": json.loads(self.config.to_json()), "environment": environment()}
            self.writer.flush()
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

    def _measure(self, step: int, state: TrainState, labels: Collection[str] | None = None) -> dict[str, Any]:
        """The numbers of the measurements, by default of all; one that fails is reported and left out."""
        numbers: dict[str, Any] = {}
        with self.window.spent("measurement"):
            for label in self.measures if labels is None else labels:
                try:
                    measured = self.measures[label](state, step)
                    numbers |= {name: np.asarray(value).item() for name, value in measured.items()}
                except Exception as error:  # a user's own code, or features of any kind
                    if must_end_run(error):
                        raise
                    self.progress.say(f"step {step}: {label} failed and is left out: {type(error).__name__}: {error}")
        return numbers

    def _measure_again(self) -> None:
        """What is missing of the steps before this process, where their checkpoints are kept."""
        for step in (step for step in self.measured if step <= self.start):
            measurements = self.plan.measurements.items()
            labels = [label for label, measurement in measurements if not self._is_recorded(measurement, step)]
            if not labels:
                continue
            try:
                restored = self.checkpoints.restore(self.plan.abstract, step) if step < self.start else None
            except (FileNotFoundError, ValueError) as error:
                self.progress.say(f"step {step}: {', '.join(labels)} is missing and cannot be measured again: {error}")
                continue
            self.progress.say(f"step {step}: {', '.join(labels)} is missing or damaged: measured again")
            self._measure(step, restored.state if restored else self.state, labels)

    def _is_recorded(self, measurement: Measurement, step: int) -> bool:
        """As the lead finds it, so that all processes measure together."""
        return not distributed.any_process(distributed.is_lead() and not measurement.is_recorded(self.workdir, step))


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
