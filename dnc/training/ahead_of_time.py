"""What a run would take on a slice of TPUs, from compiling its programs for it on any machine.

XLA's TPU compiler needs no TPU: it comes with the package libtpu (the extra `dnc[tpu]`). Memory, operations and
collectives are those of the compiled program, per chip (of geometry, a loop, operations are the leading term). Times
are estimates from the chip's peak rates, never measurements.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from dnc import distributed
from dnc.features.embedding import GLOBAL_BATCH
from dnc.geometry.measure import pair_geometry
from dnc.geometry.sizes import compiled_for
from dnc.training.build import Config, Training, build
from dnc.training.run_encoder import embedding_program

STEP = "training step"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates of one chip, as Google Cloud's documentation states them."""

    flops: float  # bfloat16 operations per second
    memory: float  # bytes of HBM
    bandwidth: float  # bytes of HBM per second
    interconnect: float  # bytes per second over all links to other chips


CHIPS = {
    "v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 448e9),
}


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program: everything per chip, bytes and operations of one execution.

    memory: arguments, results that do not reuse an argument's buffer, temporaries and code.
    collectives: kind -> (how many, bytes of their results).
    """

    name: str
    chips: int
    memory: int
    temporaries: int
    flops: float
    bytes_accessed: float
    collectives: Mapping[str, tuple[int, int]]

    @property
    def exchanged(self) -> float:
        """Bytes that a chip sends, with every collective as a ring over all chips."""
        rounds = {"all-reduce": 2, "reduce-scatter": self.chips}
        ring = (self.chips - 1) / self.chips
        return sum(size * rounds.get(kind, 1) * ring for kind, (_, size) in self.collectives.items())

    def seconds(self, chip: Chip) -> float:
        """The roofline: the longest of computing, reading memory and exchanging, as if each hid the others."""
        return max(self.flops / chip.flops, self.bytes_accessed / chip.bandwidth, self.exchanged / chip.interconnect)

    def summary(self, chip: Chip, examples: int | None = None) -> str:
        """Human-readable summary; estimates are marked as such."""
        kinds = [f"{count} {kind} ({size / 1e6:,.1f} MB)" for kind, (count, size) in sorted(self.collectives.items())]
        seconds = self.seconds(chip)
        rate = "" if examples is None else f", {examples / seconds:,.0f} examples/s"
        return "\n".join(
            [
                f"{self.name}, per chip of {self.chips}:",
                f"  memory       {self.memory / 1e9:.2f} of {chip.memory / 1e9:.0f} GB "
                f"(temporaries {self.temporaries / 1e9:.2f} GB)",
                f"  work         {self.flops / 1e9:,.1f} GFLOP, {self.bytes_accessed / 1e9:,.2f} GB accessed",
                f"  collectives  {', '.join(kinds) or 'none'}",
                f"  estimate     {1e3 * seconds:,.2f} ms at best{rate}, model FLOP utilization at most "
                f"{self.flops / chip.flops / seconds:.0%} (roofline; not measured)",
            ]
        )


def chip_of(topology: str) -> Chip:
    """The chip of a topology like v5e:4x4; raises ValueError for one that is not known."""
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        known = ", ".join(CHIPS)
        raise ValueError(f"compile_for={topology!r}: give GENERATION:SHAPE with a generation of {known}, as in v5e:4x4")
    return CHIPS[name]


def topology_mesh(topology: str, fsdp: int = 1) -> Mesh:
    """A mesh over TPUs that are not here, to compile for.

    Raises ValueError for a topology that does not exist, ImportError without the package libtpu.
    """
    chip_of(topology)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks a metadata server that only Google's machines have
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("compile_for needs the TPU compiler: pip install '.[train,tpu]' in the clone") from error
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # the compiler's own error type is not public
        raise ValueError(f"compile_for={topology!r}: {str(error).splitlines()[0]}") from error
    return distributed.make_mesh(fsdp, description.devices)


def compiled_program(name: str, lowered: jax.stages.Lowered, chips: int) -> Program:
    """Compiles, and reads what the compiler reports of the result."""
    compiled = lowered.compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    if memory is None or cost is None or text is None:
        raise RuntimeError(
            f"the compiler reports no memory or cost analysis for {name}: is libtpu the version that jax[tpu] requires?"
        )
    return Program(
        name=name,
        chips=chips,
        memory=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        flops=float(cost.get("flops", 0.0)),
        bytes_accessed=float(cost.get("bytes accessed", 0.0)),
        collectives=collectives(text),
    )


_COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\((?:.*?channel_id=(?P<channel>\d+))?"
)
_ARRAY = re.compile(r"([a-z]+)(\d*)[a-z\d]*\[([\d,]*)\]")


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """Kind -> (count, bytes of the results) of the collectives in the text of a compiled program.

    The start of an asynchronous gather or permutation names its input too: the largest array is the result. One
    that the compiler hides behind several computations stands in each of them, on one channel, and counts once.
    """
    totals: dict[str, tuple[int, int]] = {}
    channels: set[str] = set()
    for match in _COLLECTIVE.finditer(program):
        if match["channel"] in channels:
            continue
        channels |= {match["channel"]} - {None}
        sizes = [_bytes(*array.groups()) for array in _ARRAY.finditer(match["result"])]
        whole = match["kind"] in ("all-reduce", "all-to-all") or not match["start"]
        count, size = totals.get(match["kind"], (0, 0))
        totals[match["kind"]] = count + 1, size + (sum(sizes) if whole else max(sizes))
    return totals


def _bytes(kind: str, bits: str, shape: str) -> int:
    width = 1 if kind == "pred" else int(bits or 8) // 8
    return width * math.prod(int(size) for size in shape.split(",") if size)


def step_program(training: Training, mesh: Mesh) -> Program:
    """One training step of the global batch.

    The compiler counts one of the accumulated micro-batches; operations and bytes are multiplied by their number.
    """
    graphdef, state = training.abstract(mesh)
    train = training.config.train
    step = training.step(graphdef)
    batch = _abstract_rows(mesh, train.batch_size, training.data.source()[0])
    program = compiled_program(STEP, step.lower(state, batch), mesh.size)
    flops, accessed = (train.accumulate * value for value in (program.flops, program.bytes_accessed))
    return dataclasses.replace(program, flops=flops, bytes_accessed=accessed)


def programs(training: Training, mesh: Mesh) -> Iterator[Program]:
    """The training step, the embedding of one batch, and one labeling's geometry of the held-out images."""
    yield step_program(training, mesh)
    graphdef, state = training.abstract(mesh)
    chips = mesh.size
    images, _ = training.data.held_out()
    at_once = max(GLOBAL_BATCH // chips, 1) * chips
    embed = embedding_program(graphdef, mesh)
    arguments = state.params, state.rest, _abstract_rows(mesh, at_once, images[0])
    yield compiled_program(f"embedding of {at_once} images", embed.lower(*arguments), chips)
    width = jax.eval_shape(embed, *arguments).shape[1]
    classes = max(len(names) for names in training.data.class_names.values())
    n = -(-len(images) // chips) * chips
    yield geometry_program(mesh, n, width, classes)


def geometry_program(mesh: Mesh, n: int, d: int, k: int, overlap: str = "cauchy_schwarz") -> Program:
    """All pairs of k classes of n float32 features of dimension d, split over all chips; see `pair_geometry`.

    The compiler counts the inside of a loop once, and geometry is a loop over blocks of samples: operations and bytes
    are the leading terms instead, one product n x d x k and two passes over the features.
    """
    rows = distributed.batch_sharding(mesh)
    features = jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=rows)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=rows)
    measure = jax.jit(lambda x, y: pair_geometry(x, y, num_classes=k, overlap=overlap, parts=mesh.size))
    name = f"geometry of {n:,} features of dimension {d} in {k:,} classes"
    with compiled_for(mesh.devices.flat[0].platform):
        program = compiled_program(name, measure.lower(features, labels), mesh.size)
    once_through = 4 * n * d / mesh.size
    accessed = max(program.bytes_accessed, 2 * once_through)
    return dataclasses.replace(program, flops=once_through * k / 2, bytes_accessed=accessed)


def _abstract_rows(mesh: Mesh, count: int, example: Any) -> Any:
    sharding = distributed.batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype, sharding=sharding), example)


def report(config: Config, topology: str, fsdp: int = 1) -> int | str:
    """Prints each program's memory, work, collectives and estimate; 0, or what to change when it does not fit."""
    jax.config.update("jax_platforms", "cpu")
    try:
        chip, mesh = chip_of(topology), topology_mesh(topology, fsdp)
        distributed.check_divisible(mesh, config.train.batch_size, config.train.accumulate)
        training = build(config)
    except (ImportError, OSError, TypeError, ValueError) as error:
        return f"error: {error}"
    print(f"{topology}: {mesh.size} chips, data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']}", flush=True)
    too_large = []
    for program in programs(training, mesh):
        print(program.summary(chip, config.train.batch_size if program.name == STEP else None), flush=True)
        if program.memory > chip.memory:
            too_large.append(program.name)
    if too_large:
        return (
            f"error: {' and '.join(too_large)} needs more memory than the chip has: take more chips, a smaller "
            "train.batch_size, --fsdp for large networks, or model.remat=True"
        )
    return 0
