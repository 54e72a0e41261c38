"""From a config to the objects it names: the one place that knows the config's layout."""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dnc import compiling, distributed, errors
from dnc.data.images import ImageTraining
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.pipeline import ReadOptions, TrainingData
from dnc.data.sources.broken import MAX_SHARE, BrokenFiles
from dnc.data.sources.by_name import SOURCES
from dnc.data.views.recipes import choose_views
from dnc.models import MODELS, PRESETS, Encoder
from dnc.objectives import OBJECTIVES, Objective, OnlineProbe
from dnc.training import own_code
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import steps_in, warmup_cosine
from dnc.training.state import TrainState
from dnc.training.step import Step, make_step

PREPARED = ("image_size", "canvas", "held_out_examples", "context_length")  # entries of config.data
Config = Any  # a ConfigDict: its entries have no static types


@dataclasses.dataclass(frozen=True)
class Training:
    """Everything a run is made of."""

    data: TrainingData
    reading: ReadOptions
    encoder: Callable[..., Encoder]
    objective: Objective
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    total_steps: int
    steps_per_epoch: int
    config: Config

    def abstract(self, mesh: Mesh) -> tuple[nnx.GraphDef, TrainState]:
        """The network's definition, and the shapes and shardings of the state."""
        graphdef, state = jax.eval_shape(self._create)
        shardings = distributed.state_sharding(mesh, state)
        return graphdef, jax.tree.map(lambda x, sharding: x.update(sharding=sharding), state, shardings)

    def init(self, mesh: Mesh) -> TrainState:
        """The state at step 0, computed where it belongs."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract(mesh)[1])
        return jax.jit(lambda: self._create()[1], out_shardings=shardings, compiler_options=compiling.ONCE)()

    def step(self, graphdef: nnx.GraphDef) -> Step:
        """The jitted training step, see `make_step`."""
        return make_step(
            graphdef,
            self.objective,
            self.optimizer,
            self.data.make_views,
            root_key(self.config),
            self.total_steps,
            self.config.train.accumulate,
        )

    def _create(self) -> tuple[nnx.GraphDef, TrainState]:
        rngs = nnx.Rngs(self.config.seed)
        network = self.objective.network(self.encoder(rngs=rngs), rngs=rngs)
        return TrainState.create(network, self.optimizer)


def build(config: Config, data: TrainingData | None = None) -> Training:
    """Reads the config; raises ValueError or TypeError that name the entry where one does not fit.

    data: to use instead of what config.data names.
    """
    data = make_data(config.data) if data is None else data
    objective = with_probe(make_objective(config.objective), config.probe, data)
    if config.train.accumulate > 1 and not objective.separable:
        raise ValueError(
            f"train.accumulate={config.train.accumulate}: {config.objective.name} couples examples within a batch, so "
            "micro-batch losses do not average to the batch loss. To save memory, set model.remat=True or give more "
            "devices."
        )
    batch_size = config.train.batch_size
    examples = len(data.source())
    total_steps = steps_in(plain(config.train.duration), batch_size, examples)
    warmup_steps = steps_in(plain(config.schedule.warmup), batch_size, examples)
    learning_rate = warmup_cosine(
        config.schedule.peak, warmup_steps, total_steps, end_fraction=config.schedule.end_fraction
    )
    return Training(
        data=data,
        reading=make_reading(config.data),
        encoder=make_encoder(config.model),
        objective=objective,
        optimizer=make_optimizer(learning_rate=learning_rate, total_steps=total_steps, **plain(config.optimizer)),
        learning_rate=learning_rate,
        total_steps=total_steps,
        steps_per_epoch=examples // batch_size,
        config=config,
    )


def make_data(config: Config) -> TrainingData:
    """config.name chooses the data set, the other entries are its parameters; `reading` is read by `make_reading`.

    The sets of `by_name.SOURCES`, and a function of the user's own like them, also take the entries of PREPARED (see
    `ImageTraining`) and broken.
    """
    options = plain(config)
    options.pop("reading", None)
    augmentation = choose_views(**options.pop("augmentation"))
    if options["name"] == "multitask":
        return construct("data", {**options, "augmentation": augmentation}, {"multitask": MultitaskImages})
    prepared = {key: options.pop(key) for key in PREPARED if key in options}
    broken = BrokenFiles(options.pop("broken", MAX_SHARE))
    train, test = construct("data", options, {**SOURCES, "multitask": MultitaskImages})
    return ImageTraining(train, test, augmentation, **prepared, broken=broken)


def make_reading(config: Config) -> ReadOptions:
    """config.reading, which may be left out, says how examples are read."""
    return construct("data.reading", {**plain(config.get("reading", {})), "name": "reading"}, {"reading": ReadOptions})


def make_encoder(config: Config) -> Callable[..., Encoder]:
    """config.name chooses the model, the other entries are its parameters; None stands for the default.

    The result creates it: encoder(rngs=rngs).
    """
    options = {key: value for key, value in plain(config).items() if value is not None}
    sizes = PRESETS.get(options["name"], {})
    dtype = jnp.dtype(options.get("dtype", "float32"))
    return chosen("model", sizes | options | {"dtype": dtype}, MODELS, given_later=("rngs",))


def make_objective(config: Config) -> Objective:
    """config.name chooses the objective, the other entries are its hyperparameters."""
    return construct("objective", plain(config), OBJECTIVES)


def construct(section: str, options: Mapping[str, Any], known: Mapping[str, Callable[..., Any]]) -> Any:
    """What `options["name"]` names, called with the other options; see `chosen`."""
    return chosen(section, options, known)()


def chosen(
    section: str,
    options: Mapping[str, Any],
    known: Mapping[str, Callable[..., Any]],
    given_later: Collection[str] = (),
) -> Callable[..., Any]:
    """What `options["name"]` names, waiting to be called: one of `known`, or the user's own "package.module:Class".

    section: of the config, for errors. given_later: its parameters that are no options.
    Raises ValueError for a name or an option that does not exist, naming what does.
    """
    settings = dict(options)
    name = settings.pop("name")
    factory = own_code.load(section, name) if ":" in name else known.get(name)
    if factory is None:
        raise errors.unknown(f"{section}.name", name, known)
    options_of = parameters(factory) - {*given_later}
    if surplus := sorted(settings.keys() - options_of):
        raise ValueError(
            f"config.{section} sets {', '.join(map(repr, surplus))}, which {name!r} does not take: "
            f"{errors.hint(surplus[0], options_of)}"
        )
    return partial(factory, **settings)


def parameters(factory: Callable[..., Any]) -> set[str]:
    """The names of what a function or class is called with."""
    called = factory.__init__ if inspect.isclass(factory) else factory  # an nnx.Module's class has no signature
    return inspect.signature(called).parameters.keys() - {"self"}


def with_probe(objective: Objective, config: Config, data: TrainingData) -> Objective:
    """The objective with an online probe of every task, where config.probe is dict(online=True, learning_rate=...)."""
    options = {**plain(config), "name": "probe"}
    if not options.pop("online"):
        return objective
    classes = {task: len(names) for task, names in data.class_names.items()}
    return construct("probe", options, {"probe": partial(OnlineProbe, objective, classes)})


def root_key(config: Config) -> jax.Array:
    """The run's root key; nothing else is drawn from the seed but the network's initialization."""
    return jax.random.key(config.seed)


def plain(config: Any) -> dict[str, Any]:
    """A section of a config as a dict of its own, lists as tuples."""

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: convert(inner) for key, inner in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return convert(config)
