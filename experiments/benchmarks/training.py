"""One SimCLR step (two given views to updated parameters) in JAX and in PyTorch: same model, batch and precision.

python -m experiments.benchmarks.training --output=experiments/results/benchmarks     # minutes; PyTorch is in dnc[dev]

The two alternate in one process, float32, AdamW, on the same cores. The JAX step is the one that `dnc train` runs, with
its metrics and, on CPUs, a device for each core. PyTorch runs eagerly, with its faster memory format for convolutions
on CPU (channels last).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import torch
from absl import flags
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from torch import nn
from transformers import ViTConfig, ViTModel

from dnc import distributed
from dnc.models import Encoder, ResNet, ViT
from dnc.objectives import OBJECTIVES
from dnc.training.state import TrainState
from dnc.training.step import make_step
from experiments import common
from experiments.benchmarks.timing import alternating
from experiments.benchmarks.torch_networks import ResNet18, nt_xent

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_ONLY = flags.DEFINE_list("only", None, "Cases to run; all by default.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Steps of each, in turn; the median counts.", lower_bound=1)

TEMPERATURE, WIDTHS = 0.1, (128,)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network in both libraries, `examples` a step (twice as many views) of `size` pixels a side."""

    examples: int
    size: int
    jax_encoder: Callable[[nnx.Rngs], Encoder]
    torch_encoder: Callable[[], "ResNet18 | Cls"]


class Cls(nn.Module):
    """transformers' ViT, down to the class token."""

    features = 384
    redundant = 384  # the class token's position only adds to the token: ours has none

    def __init__(self, size: int) -> None:
        super().__init__()
        config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=size)
        self.vit = ViTModel(config, add_pooling_layer=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vit(images).last_hidden_state[:, 0]


CASES = {
    "ResNet-18, 3x3 stem, width 64, 32 px": Case(
        32, 32, lambda rngs: ResNet(18, "cifar", 64, rngs=rngs), lambda: ResNet18(64, 1)
    ),
    "ResNet-18, quickstart's size, 32 px": Case(
        128, 32, lambda rngs: ResNet(18, "cifar_s2", 16, rngs=rngs), lambda: ResNet18(16, 2)
    ),
    "ViT-S/16, 96 px": Case(16, 96, lambda rngs: ViT(96, epsilon=1e-12, rngs=rngs), lambda: Cls(96)),
}


def main() -> None:
    chosen = {
        name: case for name, case in CASES.items() if not _ONLY.value or any(part in name for part in _ONLY.value)
    }
    torch.set_num_threads(distributed.available_cores())
    distributed.initialize(batch_size=math.gcd(*(case.examples for case in chosen.values())))
    rows = {}
    for name, case in chosen.items():
        views = np.random.default_rng(0).standard_normal((2, case.examples, case.size, case.size, 3), np.float32)
        (jax_step, jax_size), (torch_step, torch_size) = jax_side(case, views), torch_side(case, views)
        if jax_size != torch_size:
            raise AssertionError(f"{name}: {jax_size} parameters in JAX, {torch_size} in PyTorch")
        seconds = alternating([jax_step, torch_step], _ROUNDS.value)
        rows[name] = {"parameters": jax_size, "examples": case.examples, "jax": seconds[0], "torch": seconds[1]}
        print(*_row(name, rows[name]), flush=True)
    record = common.machine(jax=jax.__version__, PyTorch=torch.__version__) | {"cases": rows}
    lines = [f"{record['machine']}, {record['date']}; float32, median of {_ROUNDS.value}.", ""]
    head = ["network", "examples/s in JAX", "in PyTorch", "JAX : PyTorch"]
    lines += common.table(head, (_row(name, row) for name, row in rows.items()))
    common.save(_OUTPUT.value, "training", record, lines)


def _row(name: str, row: dict[str, Any]) -> list[str]:
    rates = row["examples"] / row["jax"], row["examples"] / row["torch"]
    return [name, f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{rates[0] / rates[1]:.2f}"]


def jax_side(case: Case, views: np.ndarray) -> tuple[Callable[[], Any], int]:
    """The step of `dnc train`, its views given; and the number of parameters."""
    objective = OBJECTIVES["simclr"](temperature=TEMPERATURE, widths=WIDTHS)
    optimizer = optax.adamw(1e-3)
    rngs = nnx.Rngs(0)
    graphdef, state = TrainState.create(objective.network(case.jax_encoder(rngs), rngs=rngs), optimizer)
    mesh = distributed.make_mesh()
    state = jax.device_put(state, distributed.replicated(mesh))
    by_example = NamedSharding(mesh, PartitionSpec(None, *distributed.BATCH))
    batch = {"views": jax.device_put(views, by_example), "labels": {}}
    step = make_step(graphdef, objective, optimizer, lambda batch, key: batch, jax.random.key(0), 1)
    size = sum(x.size for x in jax.tree.leaves(state.params))

    def run() -> Any:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return run, size


def torch_side(case: Case, views: np.ndarray) -> tuple[Callable[[], None], int]:
    """The same step in PyTorch's own words."""
    encoder = case.torch_encoder()
    network = nn.Sequential(encoder, nn.Linear(encoder.features, *WIDTHS))
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    side_by_side = views.swapaxes(0, 1).reshape(-1, *views.shape[2:]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(side_by_side)).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        optimizer.zero_grad()
        nt_xent(network(images), TEMPERATURE).backward()
        optimizer.step()

    return run, sum(p.numel() for p in network.parameters()) - encoder.redundant


if __name__ == "__main__":
    common.main(main)
