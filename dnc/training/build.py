"""From a config to the objects it names: the one place that knows the config's layout."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dnc import distributed
from dnc.data.arrays import ArrayTraining
from dnc.data.multitask import MultitaskImages
from dnc.data.pipeline import TrainingData
from dnc.data.recipes import choose_views
from dnc.data.sources import load_digits
from dnc.models.resnet import ResNet
from dnc.objectives import OBJECTIVES, Objective
from dnc.training.optimizers import make_optimizer
from dnc.training.schedules import steps_in, warmup_cosine
from dnc.training.state import TrainState
from dnc.training.step import COMPILED_QUICKLY

Config = Any  # a ConfigDict: its entries have no static types


@dataclasses.dataclass(frozen=True)
class Training:
    """Everything a run is made of."""

    data: TrainingData
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

    def _create(self) -> tuple[nnx.GraphDef, TrainState]:
        model = dict(self.config.model)
        dtype = jnp.dtype(model.pop("dtype"))
        rngs = nnx.Rngs(self.config.seed)
        network = self.objective.network(ResNet(**model, dtype=dtype, rngs=rngs), rngs=rngs)
        return TrainState.create(network, self.optimizer)


def build(config: Config) -> Training:
    """Reads the config; raises ValueError or TypeError that name the entry where one does not fit."""
    data, objective = make_data(config.data), make_objective(config.objective)
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
        objective=objective,
        optimizer=make_optimizer(learning_rate=learning_rate, **_plain(config.optimizer)),
        learning_rate=learning_rate,
        total_steps=total_steps,
        steps_per_epoch=examples // batch_size,
        config=config,
    )


def make_data(config: Config) -> TrainingData:
    """config.name chooses the data set, the other entries are its parameters."""
    options = _plain(config)
    name = options.pop("name")
    augmentation = choose_views(**options.pop("augmentation"))
    if name == "multitask":
        return MultitaskImages(**options, augmentation=augmentation)
    if name == "digits":
        splits = load_digits(**options)
        return ArrayTraining(splits["train"], splits["test"], augmentation)
    raise ValueError(f"data.name={name!r}: choose 'multitask' or 'digits'.")


def make_objective(config: Config) -> Objective:
    """config.name chooses the objective, the other entries are its hyperparameters."""
    options = _plain(config)
    name = options.pop("name")
    if name not in OBJECTIVES:
        raise ValueError(f"objective.name={name!r}: choose one of {sorted(OBJECTIVES)}.")
    known = [field.name for field in dataclasses.fields(OBJECTIVES[name])]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"config.objective sets {', '.join(unknown)}, which {name!r} does not take (it takes {', '.join(known)}): "
            "start from a config of that objective"
        )
    return OBJECTIVES[name](**options)


def root_key(config: Config) -> jax.Array:
    """The run's root key; nothing else is drawn from the seed but the network's initialisation."""
    return jax.random.key(config.seed)


def _plain(config: Any) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {key: convert(inner) for key, inner in value.items()}
        return tuple(value) if isinstance(value, list) else value

    return convert(config)
