"""A user's file outside the package: a config, and the objective, source and measurement that it names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dnc.data.sources.arrays import ArrayImages
from dnc.objectives.base import Network, Objective
from dnc.training.measurements import Measurement
from tests.training import tiny

CLASSES = {"brightness": ("dark", "bright")}


def shades(count: int, seed: int = 0) -> tuple[ArrayImages, ArrayImages]:
    """A source: noise on a dark or a bright background."""
    rng = np.random.default_rng(seed)

    def images(n: int) -> ArrayImages:
        labels = np.arange(n) % 2
        pixels = 60 + 120 * labels[:, None, None, None] + rng.integers(-40, 40, (n, 16, 16, 3))
        return ArrayImages(pixels.astype(np.uint8), {"brightness": labels}, CLASSES)

    return images(count), images(20)


@dataclasses.dataclass(frozen=True)
class Attract(Objective):
    """An objective: equal views, nothing more."""

    separable = True
    width: int = 8

    def network(self, encoder, *, rngs):
        return Network(encoder, (self.width,), rngs=rngs)

    def loss(self, network, batch, key):
        first, second = network(batch["views"], train=True)
        return jnp.mean((first - second) ** 2), {}


@dataclasses.dataclass(frozen=True)
class WeightNorm(Measurement):
    """A measurement: the mean of |w|^order over all parameters."""

    order: int = 2

    def start(self, subject):
        @jax.jit
        def norm(params):
            leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(params)]
            return jnp.mean(jnp.abs(jnp.concatenate(leaves)) ** self.order)

        return lambda state, step: {"weight_norm": float(norm(state.params))}


def get_config():
    config = tiny.get_config().unlock()
    config.data = dict(name="own_methods:shades", count=40, seed=1, augmentation=dict(crop_scale=(0.5, 1.0)))
    config.objective = dict(name="own_methods:Attract", width=4)
    config.measure = dict(
        collapse=dict(shots=(1, 5), repeats=2, normalize=False),
        weights=dict(name="own_methods:WeightNorm", order=1),
    )
    config.train.update(batch_size=8, duration=dict(steps=2))
    config.schedule.warmup.steps = 1
    return config.lock()
