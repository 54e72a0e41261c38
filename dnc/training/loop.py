"""Train, measure and checkpoint: the life of one run, from an empty workdir to its report."""

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from dnc import distributed
from dnc.analysis import Analysis, analyze
from dnc.data.contact_sheet import save_contact_sheet
from dnc.data.pipeline import batches
from dnc.report.html import write_report
from dnc.training.build import Config, Training, build, root_key
from dnc.training.checkpoint import Checkpoints
from dnc.training.embedding import make_embedder
from dnc.training.state import TrainState
from dnc.training.step import make_step, views_difference
from dnc.training.writers import MetricWriter, Progress, clock, environment, write_json

WATCHED = ("loss", "gradient_norm", "parameter_norm")  # finite at every step, or the run stops


class NonFiniteLossError(FloatingPointError):
    """Training diverged; the message says when, and which checkpoint is the last good one."""


def _diverged(step: int, what: str, good_checkpoint: int | None) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"step {step}: {what}. Training has stopped; the last good checkpoint is of step {good_checkpoint}. "
        "Lower schedule.peak or set optimizer.clip_norm."
    )


def log_spaced_steps(total: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, ... and the last step."""
    series = (base * 10**power for power in itertools.count() for base in (1, 2, 5))
    return [0, *itertools.takewhile(lambda step: step < total, series), total]


def train_and_evaluate(config: Config, workdir: epath.PathLike, mesh: Mesh | None = None) -> Analysis:
    """Runs a config to its end, or on to its end if `workdir` holds an interrupted run of the same config.

    Leaves in workdir: config.json, environment.json, metrics.jsonl, tensorboard/, checkpoints/,
    measurements/step_*.json (at steps 0, 1, 2, 5, 10, ... and the last), images/ and report/index.html.
    Returns the last measurement.

    Raises:
      ValueError, before any work: a config that does not fit itself, the devices, or the workdir's earlier config.
      NonFiniteLossError: names the step; the newest checkpoint is from before it.
    """
    workdir = epath.Path(workdir)
    mesh = distributed.data_mesh() if mesh is None else mesh
    return run(prepare(config, workdir, mesh), workdir, mesh)


def prepare(config: Config, workdir: epath.Path, mesh: Mesh) -> Training:
    """All checks of `train_and_evaluate`, then the claim on the workdir: a config that is refused leaves nothing."""
    training = build(config)
    distributed.check_divisible(mesh, config.train.batch_size)
    _refuse_other_config(workdir, config)
    _check_views(training)
    if not (workdir / "config.json").exists():
        write_json(workdir / "config.json", json.loads(config.to_json()))
    write_json(workdir / "environment.json", environment())
    return training


def run(training: Training, workdir: epath.Path, mesh: Mesh) -> Analysis:
    """From the workdir's last checkpoint, or from nothing, to the report; see `train_and_evaluate`."""
    started = time.perf_counter()
    measured = log_spaced_steps(training.total_steps)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=measured)
    this_run = _Run(training, mesh, workdir, checkpoints)
    try:
        last = this_run.train(measured)
    finally:
        checkpoints.close()
    print(last.summary())
    page = write_report(os.fspath(workdir), os.fspath(workdir / "report"))
    print(f"Report: {page} (training, measuring and report: {clock(time.perf_counter() - started)} min)")
    return last


class _Run:
    """The objects that live as long as the process, so that the loop itself reads plainly."""

    def __init__(self, training: Training, mesh: Mesh, workdir: epath.Path, checkpoints: Checkpoints) -> None:
        self.training, self.mesh, self.workdir, self.checkpoints = training, mesh, workdir, checkpoints
        self.config = training.config
        self.images, self.labels = training.data.held_out()
        graphdef, state = training.init()
        state = jax.device_put(state, distributed.replicated(mesh))
        latest = checkpoints.latest_step()
        self.state: TrainState = state if latest is None else checkpoints.restore(state)
        self.start = int(self.state.step)
        self.step = make_step(
            graphdef, training.objective, training.optimizer, training.data.make_views, root_key(self.config)
        )
        self.embed = make_embedder(graphdef, mesh)
        self.writer = MetricWriter(workdir, self.start)
        self.progress = Progress(training.total_steps, self.start)
        save_contact_sheet(
            self.images, self.labels, training.data.class_names, workdir / "images" / "contact_sheet.png"
        )

    def train(self, measured: list[int]) -> Analysis:
        """From the restored step to the last; measures and saves on the way."""
        total, every = self.training.total_steps, self.config.train.checkpoint_every
        self.progress.say(_headline(self.training, self.mesh, self.start))
        if self.start == total:
            self.progress.say("this run is complete: measuring its last step again")
        analysis = self._measure(self.start) if self.start in measured else None
        if self.checkpoints.latest_step() is None:
            self.checkpoints.save(0, self.state)
        window = _Window(self.start, total, self.config.train.batch_size)
        for step, batch in self._batches():
            self.state, metrics = self.step(self.state, batch)
            window.add(metrics)
            pause = step in measured or step % every == 0
            if pause or step % self.config.train.log_every == 0:
                self._log(step, window)
            if pause:
                started = time.perf_counter()
                analysis = self._measure(step) if step in measured else analysis
                self.checkpoints.save(step, self.state)
                window.pause(time.perf_counter() - started)
        self.writer.close()
        self.progress.close()
        assert analysis is not None  # the last step is always measured
        return analysis

    def _batches(self) -> Iterator[tuple[int, Any]]:
        source = self.training.data.source()
        steps = range(self.start + 1, self.training.total_steps + 1)
        host = batches(source, self.config.train.batch_size, self.config.seed, self.start)
        return ((step, distributed.shard_batch(self.mesh, batch)) for step, batch in zip(steps, host, strict=False))

    def _log(self, step: int, window: "_Window") -> None:
        metrics = window.flush(step, self.checkpoints.latest_step())
        metrics["learning_rate"] = float(np.asarray(self.training.learning_rate(step - 1)))
        metrics["epoch"] = step / self.training.steps_per_epoch
        self.writer.write(step, metrics)
        self.progress.update(step, metrics, window.seconds_left(step))

    def _measure(self, step: int) -> Analysis:
        started = time.perf_counter()
        features = self.embed(self.state.params, self.state.rest, self.images)
        if not np.all(np.isfinite(features)):
            raise _diverged(step, "the features are not finite", self.checkpoints.latest_step())
        options = self.config.measure
        analysis = analyze(
            features,
            dict(self.labels),
            class_names={task: list(names) for task, names in self.training.data.class_names.items()},
            normalize=options.normalize,
            shots=tuple(options.shots),
            repeats=options.repeats,
            seed=self.config.seed,
            step=step,
            epoch=step / self.training.steps_per_epoch,
        )
        analysis.save(self.workdir / "measurements" / f"step_{step:08d}.json")
        directional = ", ".join(
            f"{name} {float(np.nanmean(task.directional_cdnv)):.3g}" for name, task in analysis.tasks.items()
        )
        seconds = time.perf_counter() - started
        self.progress.say(f"step {step}: directional CDNV {directional}  (measured in {seconds:.1f} s)")
        return analysis


class _Window:
    """Metrics since the last log line, still on the device; time spent measuring and saving does not count."""

    def __init__(self, start: int, total: int, batch_size: int) -> None:
        self._start, self._total, self._batch_size = start, total, batch_size
        self._steps: list[Mapping[str, jax.Array]] = []
        self._since = time.perf_counter()
        self._timed_steps, self._timed_seconds = 0, 0.0  # without the first window, which compiles

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        self._steps.append(metrics)

    def flush(self, step: int, good_checkpoint: int | None) -> dict[str, float]:
        """Means over the window; raises NonFiniteLossError for the first step with a value in WATCHED not finite."""
        values = jax.device_get(self._steps)
        seconds = time.perf_counter() - self._since
        for offset, metrics in enumerate(values, start=step - len(values) + 1):
            if not all(np.isfinite(metrics[name]) for name in WATCHED):
                values_then = ", ".join(f"{name} {metrics[name]}" for name in WATCHED)
                raise _diverged(offset, values_then, good_checkpoint)
        if step - len(values) > self._start:
            self._timed_steps, self._timed_seconds = self._timed_steps + len(values), self._timed_seconds + seconds
        means = {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}
        means["examples_per_second"] = len(values) * self._batch_size / seconds
        self._steps, self._since = [], time.perf_counter()
        return means

    def pause(self, seconds: float) -> None:
        self._since += seconds

    def seconds_left(self, step: int) -> float | None:
        """None while only the first window is known."""
        return self._timed_seconds / self._timed_steps * (self._total - step) if self._timed_steps else None


def _refuse_other_config(workdir: epath.Path, config: Config) -> None:
    path = workdir / "config.json"
    if not path.exists():
        return
    if differences := list(_differences(json.loads(path.read_text()), json.loads(config.to_json()))):
        raise ValueError(
            f"workdir={workdir} holds a run of another config: {'; '.join(differences)}. "
            "Choose a new --workdir, or give the old settings to continue."
        )


def _differences(theirs: Any, ours: Any, path: str = "config") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}")
    elif theirs != ours:
        yield f"{path} was {theirs!r} and is now {ours!r}"


def _check_views(training: Training) -> None:
    """Two views of an example must differ, or the objective is trivial."""
    batch = next(batches(training.data.source(), training.config.train.batch_size, training.config.seed))
    if float(views_difference(training.data.make_views, batch, root_key(training.config))) == 0.0:
        raise ValueError("The two views of every example are the same picture: turn on augmentation or views='render'.")


def _headline(training: Training, mesh: Mesh, start: int) -> str:
    model = training.config.model
    return (
        f"{training.config.objective.name}: ResNet-{model.depth}, {model.stem} stem, width {model.width}, "
        f"{model.dtype}; "
        f"steps {start} to {training.total_steps} on {mesh.size} {mesh.devices.flat[0].platform} device(s)"
    )
