"""What training carries from one step to the next, and nothing else."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from flax import nnx

from dnc.types import Array, Int


class TrainState(NamedTuple):
    """Parameters, the rest of the network's variables (BatchNorm statistics), optimizer state and the step count.

    Random keys are not here: every key is `fold_in(key(seed), step)`, a function of the config and the step.
    """

    step: Int[Array, ""]
    params: nnx.State
    rest: nnx.State
    opt_state: optax.OptState

    @classmethod
    def create(cls, network: nnx.Module, optimizer: optax.GradientTransformation) -> "tuple[nnx.GraphDef, TrainState]":
        """Splits a network into its static definition and a state at step 0."""
        graphdef, params, rest = nnx.split(network, nnx.Param, ...)
        return graphdef, cls(jnp.zeros((), jnp.int32), params, rest, optimizer.init(params))
