"""One SimCLR step (two given views to updated parameters) in JAX and in PyTorch: same model, batch and precision.

python -m experiments.benchmarks.training --output=experiments/results/benchmarks     # minutes; PyTorch is in dnc[dev]

The two alternate in one process, AdamW, on the same device. The JAX step is the one that `dnc train` runs, with its
metrics and, on CPUs, a device for each core. PyTorch runs eagerly, with its faster memory format for convolutions
(channels last), and with --compiled through torch.compile too.

On CPUs everything is float32. On a GPU the networks are larger, and each is timed as "float32", which in JAX computes
products and convolutions with TF32 and in PyTorch convolutions alone, both by default; as "tf32", with PyTorch's
products in TF32 too, where a network has any; and as "bfloat16": `dtype="bfloat16"` in JAX, autocast in PyTorch.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
from experiments.benchmarks.torch_networks import ResNet18, ResNet50, nt_xent

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
_ONLY = flags.DEFINE_list("only", None, "Cases to run; all by default.")
_PRECISIONS = flags.DEFINE_list("precisions", None, "Precisions to time; all by default.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each, in turn; the median counts.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 1, "Steps in a round: a GPU needs several, as in training.", lower_bound=1)
_COMPILED = flags.DEFINE_bool("compiled", False, "Time PyTorch's step through torch.compile as well.")

TEMPERATURE, WIDTHS = 0.1, (128,)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network in both libraries, `examples` a step (twice as many views) of `size` pixels a side.

    products: multiplications of a forward pass of one view, in 10^9; 0 where they are not counted.
    """

    examples: int
    size: int
    jax_encoder: Callable[[Any, nnx.Rngs], Encoder]
    torch_encoder: Callable[[], "ResNet18 | ResNet50 | Cls"]
    precisions: tuple[str, ...] = ("float32",)
    products: float = 0


class Cls(nn.Module):
    """transformers' ViT, down to the class token."""

    def __init__(self, size: int, width: int = 384) -> None:
        super().__init__()
        self.features = self.redundant = width  # the class token's position only adds to the token: ours has none
        config = ViTConfig(
            hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width, image_size=size
        )
        self.vit = ViTModel(config, add_pooling_layer=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vit(images).last_hidden_state[:, 0]


ON_CPU = {
    "ResNet-18, 3x3 stem, width 64, 32 px": Case(
        32, 32, lambda dtype, rngs: ResNet(18, "cifar", 64, dtype=dtype, rngs=rngs), lambda: ResNet18(64, 1)
    ),
    "ResNet-18, width 16, 32 px": Case(
        128, 32, lambda dtype, rngs: ResNet(18, "cifar_s2", 16, dtype=dtype, rngs=rngs), lambda: ResNet18(16, 2)
    ),
    "ViT-S/16, 96 px": Case(
        16, 96, lambda dtype, rngs: ViT(96, epsilon=1e-12, dtype=dtype, rngs=rngs), lambda: Cls(96)
    ),
}
ON_GPU = {
    "ResNet-18, 3x3 stem, width 64, 32 px": dataclasses.replace(
        ON_CPU["ResNet-18, 3x3 stem, width 64, 32 px"],
        examples=1024,
        precisions=("float32", "bfloat16"),
        products=0.556,
    ),
    "ResNet-50, 224 px": Case(
        64,
        224,
        lambda dtype, rngs: ResNet(50, "imagenet", 64, dtype=dtype, rngs=rngs),
        ResNet50,
        ("bfloat16",),
        4.09,
    ),
    "ViT-B/16, 224 px": Case(
        64,
        224,
        lambda dtype, rngs: ViT(224, width=768, heads=12, epsilon=1e-12, dtype=dtype, rngs=rngs),
        lambda: Cls(224, 768),
        ("float32", "tf32", "bfloat16"),
        17.58,
    ),
}


def main() -> None:
    torch.set_num_threads(distributed.available_cores())
    distributed.initialize(batch_size=math.gcd(*(case.examples for case in ON_CPU.values())))
    device = common.accelerator() or "CPU"
    rows = []
    for name, case in (ON_GPU if common.accelerator() else ON_CPU).items():
        if _ONLY.value and not any(part in name for part in _ONLY.value):
            continue
        views = np.random.default_rng(0).standard_normal((2, case.examples, case.size, case.size, 3), np.float32)
        for precision in case.precisions:
            if _PRECISIONS.value and precision not in _PRECISIONS.value:
                continue
            row = {"device": device, "network": name, "precision": precision, "examples": case.examples}
            rows.append(row | _timed(case, views, precision))
            print(*_row(rows[-1]), flush=True)
    record: dict[str, Any] = common.machine(jax=jax.__version__, PyTorch=torch.__version__)
    record |= {"rounds": _ROUNDS.value, "steps": _STEPS.value, "cases": rows}
    timed = f"median of {_ROUNDS.value} rounds of {_STEPS.value} step(s)"
    lines = [f"{record['machine']}, {record['date']}; {timed}.", ""]
    head = ["device", "network", "precision", "examples a step", "examples/s in JAX", "in PyTorch", "JAX : PyTorch"]
    head += ["in compiled PyTorch", "JAX : compiled PyTorch"] if _COMPILED.value else []
    head += ["TFLOP/s in JAX"] if common.accelerator() else []
    lines += common.table(head, map(_row, rows))
    common.save(_OUTPUT.value, common.beside("training"), record, lines)


def _timed(case: Case, views: np.ndarray, precision: str) -> dict[str, Any]:
    """Seconds of a step in each library, the number of parameters, and what JAX's step computes."""
    (jax_step, jax_size), (torch_step, torch_size) = (
        jax_side(case, views, precision),
        torch_side(case, views, precision),
    )
    if jax_size != torch_size:
        raise AssertionError(f"{jax_size} parameters in JAX, {torch_size} in PyTorch")
    programs = {"jax": jax_step, "torch": torch_step}
    if _COMPILED.value:
        programs["torch_compiled"], _ = torch_side(case, views, precision, compiled=True)
    times = alternating(list(programs.values()), _ROUNDS.value)
    seconds = dict(zip(programs, (time / _STEPS.value for time in times), strict=True))
    operations = 2 * 3 * 2 * case.examples * case.products * 1e9  # 2 a product, 3 passes, 2 views
    if common.accelerator():
        torch.cuda.empty_cache()
    return {"parameters": jax_size, **seconds, "teraflops": operations / seconds["jax"] / 1e12}


def _row(row: dict[str, Any]) -> list[str]:
    ours = row["examples"] / row["jax"]
    cells = [row["device"], row["network"], row["precision"], str(row["examples"]), f"{ours:.1f}"]
    for other in ("torch", "torch_compiled"):
        if other in row:
            cells += [f"{row['examples'] / row[other]:.1f}", f"{row[other] / row['jax']:.2f}"]
    return [*cells, f"{row['teraflops']:.0f}"] if row["teraflops"] else cells


def jax_side(
    case: Case, views: np.ndarray, precision: str, optimizer: optax.GradientTransformation | None = None
) -> tuple[Callable[[], Any], int]:
    """The step of `dnc train`, its views given, by default with AdamW; and the number of parameters."""
    objective = OBJECTIVES["simclr"](temperature=TEMPERATURE, widths=WIDTHS)
    optimizer = optax.adamw(1e-3) if optimizer is None else optimizer
    rngs = nnx.Rngs(0)
    encoder = case.jax_encoder(jnp.bfloat16 if precision == "bfloat16" else jnp.float32, rngs)
    graphdef, state = TrainState.create(objective.network(encoder, rngs=rngs), optimizer)
    mesh = distributed.make_mesh()
    state = jax.device_put(state, distributed.replicated(mesh))
    by_example = NamedSharding(mesh, PartitionSpec(None, *distributed.BATCH))
    batch = {"views": jax.device_put(views, by_example), "labels": {}}
    step = make_step(graphdef, objective, optimizer, lambda batch, key: batch, jax.random.key(0), 1)
    size = sum(x.size for x in jax.tree.leaves(state.params))

    def run() -> Any:
        nonlocal state
        metrics = None
        for _ in range(_STEPS.value):
            state, metrics = step(state, batch)
        return metrics

    return run, size


def torch_side(case: Case, views: np.ndarray, precision: str, compiled: bool = False) -> tuple[Callable[[], None], int]:
    """The same step in PyTorch's own words."""
    device = "cuda" if common.accelerator() else "cpu"
    encoder = case.torch_encoder()
    network = nn.Sequential(encoder, nn.Linear(encoder.features, *WIDTHS)).to(device)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    side_by_side = views.swapaxes(0, 1).reshape(-1, *views.shape[2:]).transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(side_by_side)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    forward: Any = torch.compile(network) if compiled else network

    def run() -> None:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        for _ in range(_STEPS.value):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext():
                embeddings = forward(images)
            nt_xent(embeddings.float(), TEMPERATURE).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run, sum(p.numel() for p in network.parameters()) - encoder.redundant


if __name__ == "__main__":
    common.main(main)
