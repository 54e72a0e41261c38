"""From a config to the objects it names: the one place that knows the config's layout."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dnc import distributed
from dnc.data.images import ImageTraining
from dnc.data.multitask.dataset import MultitaskImages
from dnc.data.pipeline import ReadOptions, TrainingData
from dnc.data.sources.broken import BrokenFiles
from dnc.data.sources.by_name import SOURCES
from dnc.data.views.recipes import choose_views
from dnc.errors import hint
from dnc.models import MODELS, PRESETS, Encoder
from dnc.objectives import OBJECTIVES, Objective, OnlineProbe
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import steps_in, warmup_cosine
from dnc.training.state import TrainState
from dnc.training.step import COMPILED_QUICKLY, Step, make_step

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
        return jax.jit(lambda: self._create()[1], out_shardings=shardings, compiler_options=COMPILED_QUICKLY)()

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
    objective = with_probe(make_objective(config.objective), config.get("probe"), data)
    if config.train.accumulate > 1 and not objective.separable:
        raise ValueError(
            f"train.accumulate={config.train.accumulate}: {config.objective.name} relates the examples of a batch to "
            "each other, so its parts have another loss. To save memory, set model.remat=True or give more devices."
        )
    batch_size = config.train.batch_size
    examples = len(data.source())
    total_steps = steps_in(_plain(config.train.duration), batch_size, examples)
    warmup_steps = steps_in(_plain(config.schedule.warmup), batch_size, examples)
    learning_rate = warmup_cosine(
        config.schedule.peak, warmup_steps, total_steps, end_fraction=config.schedule.end_fraction
    )
    return Training(
        data=data,
        reading=make_reading(config.data),
        encoder=make_encoder(config.model),
        objective=objective,
        optimizer=make_optimizer(learning_rate=learning_rate, total_steps=total_steps, **_plain(config.optimizer)),
        learning_rate=learning_rate,
        total_steps=total_steps,
        steps_per_epoch=examples // batch_size,
        config=config,
    )


def make_data(config: Config) -> TrainingData:
    """config.name chooses the data set, the other entries are its parameters; `reading` is read by `make_reading`.

    The sets of `by_name.SOURCES` also take the entries of PREPARED (see `ImageTraining`) and broken.
    """
    options = _plain(config)
    options.pop("reading", None)
    name = options.pop("name")
    if name != "multitask" and name not in SOURCES:
        raise ValueError(f"data.name={name!r} is not known: {hint(name, [*SOURCES, 'multitask'])}")
    augmentation = choose_views(**options.pop("augmentation"))
    if name == "multitask":
        _check_known("data", name, options, _parameters(MultitaskImages))
        return MultitaskImages(**options, augmentation=augmentation)
    prepared = {key: options.pop(key) for key in PREPARED if key in options}
    broken = BrokenFiles(options.pop("broken", "skip"))
    _check_known("data", name, options, _parameters(SOURCES[name]))
    return ImageTraining(*SOURCES[name](**options), augmentation, **prepared, broken=broken)


def make_reading(config: Config) -> ReadOptions:
    """config.reading, which may be left out, says how examples are read."""
    options = _plain(config.get("reading", {}))
    _check_known("data.reading", "reading", options, _parameters(ReadOptions))
    return ReadOptions(**options)


def make_encoder(config: Config) -> Callable[..., Encoder]:
    """config.name chooses the model ("resnet" where there is none), the other entries are its parameters.

    The result creates it: encoder(rngs=rngs).
    """
    options = _plain(config)
    name = options.pop("name", "resnet")
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is not known: {hint(name, MODELS)}")
    _check_known("model", name, options, _parameters(MODELS[name].__init__) - {"self", "rngs"})
    sizes = PRESETS.get(name, {})
    return partial(MODELS[name], **sizes | options | {"dtype": jnp.dtype(options.get("dtype", "float32"))})


def make_objective(config: Config) -> Objective:
    """config.name chooses the objective, the other entries are its hyperparameters."""
    options = _plain(config)
    name = options.pop("name")
    if name not in OBJECTIVES:
        raise ValueError(f"objective.name={name!r} is not known: {hint(name, OBJECTIVES)}")
    _check_known("objective", name, options, _parameters(OBJECTIVES[name]))
    return OBJECTIVES[name](**options)


def _parameters(takes: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(takes).parameters)


def _check_known(section: str, name: str, options: Iterable[str], known: set[str]) -> None:
    if unknown := sorted(set(options) - known):
        given = ", ".join(map(repr, unknown))
        raise ValueError(f"config.{section} sets {given}, which {name!r} does not take: {hint(unknown[0], known)}")


def with_probe(objective: Objective, config: Config, data: TrainingData) -> Objective:
    """The objective with an online probe of every task, where config.probe is dict(online=True, learning_rate=...)."""
    options = _plain(config or {})
    online = options.pop("online", False)
    _check_known("probe", "online", options, {"learning_rate"})
    classes = {task: len(names) for task, names in data.class_names.items()}
    return OnlineProbe(objective, classes, **options) if online else objective


def root_key(config: Config) -> jax.Array:
    """The run's root key; nothing else is drawn from the seed but the network's initialization."""
    return jax.random.key(config.seed)


def _plain(config: Any) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: convert(inner) for key, inner in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return convert(config)
