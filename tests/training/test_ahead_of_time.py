"""Reading a compiled program: collectives and their sizes, rooflines, and a topology that cannot be."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import pytest

from dnc import distributed
from dnc.training import ahead_of_time
from dnc.training.ahead_of_time import CHIPS, Program, chip_of, collectives, compiled_program
from tests.training import tiny

HLO = """
  %all-reduce.1 = f32[128,4]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}
  %all-reduce.2 = (bf16[8]{0}, f32[]) all-reduce(%a, %b), channel_id=2
  %ag = (f32[4,2]{1,0}, f32[32,2]{1,0}) all-gather-start(%y), dimensions={0}
  %agd = f32[32,2]{1,0} all-gather-done(%ag)
  %rs = s32[16]{0} reduce-scatter(%z), dimensions={0}
  %p = pred[10]{0:T(4,128)(4,1)S(1)} collective-permute(%q), source_target_pairs={{0,1}}
"""


def test_collectives_are_counted_by_kind_with_the_bytes_of_their_results():
    assert collectives(HLO) == {
        "all-reduce": (2, 4 * 128 * 4 + 2 * 8 + 4),
        "all-gather": (1, 4 * 32 * 2),
        "reduce-scatter": (1, 4 * 16),
        "collective-permute": (1, 10),
    }


def test_a_collective_in_pieces_behind_several_computations_counts_once():
    piece = "  %ag.{} = f32[32,2]{{1,0}} all-gather(%y), channel_id={}, dimensions={{0}}\n"
    assert collectives("".join(piece.format(i, channel) for i, channel in enumerate((1, 1, 1, 12)))) == {
        "all-gather": (2, 2 * 4 * 32 * 2)
    }


def test_a_ring_sends_twice_for_a_sum_and_once_for_a_gather():
    program = Program(
        "p", 4, 0, 0, 1e12, 1e9, {"all-reduce": (1, 100), "all-gather": (1, 40), "reduce-scatter": (1, 10)}
    )
    assert program.exchanged == pytest.approx((2 * 100 + 40 + 4 * 10) * 3 / 4)
    chip = CHIPS["v5e"]
    assert program.seconds(chip) == pytest.approx(max(1e12 / chip.flops, 1e9 / chip.bandwidth))
    assert "roofline; not measured" in program.summary(chip, examples=64)


def test_a_program_of_this_machine_is_read():
    """A product sharded over its inner axis: 2 n^3 / 8 operations a device and one sum of the result."""
    mesh, n = distributed.make_mesh(devices=jax.devices()[:8]), 256
    inner = jax.NamedSharding(mesh, jax.P(None, ("data", "fsdp")))
    rows = distributed.batch_sharding(mesh)
    x = jax.ShapeDtypeStruct((n, n), jnp.float32, sharding=inner)
    y = jax.ShapeDtypeStruct((n, n), jnp.float32, sharding=rows)
    product = jax.jit(jnp.dot, out_shardings=distributed.replicated(mesh))
    program = compiled_program("product", product.lower(x, y), mesh.size)
    assert program.flops == pytest.approx(2 * n**3 / 8, rel=0.1)
    assert program.collectives == {"all-reduce": (1, 4 * n * n)}
    assert program.memory >= 4 * n * n * (1 + 2 / 8)


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:2", "v5e:axb"])
def test_an_unknown_topology_is_refused(topology):
    with pytest.raises(ValueError, match="give GENERATION:SHAPE"):
        chip_of(topology)


def test_without_the_compiler_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert "pip install '.[train,tpu]'" in str(ahead_of_time.report(tiny.get_config(), "v5e:2x4"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs dnc[tpu]")
def test_a_run_is_compiled_for_tpus(capsys):
    assert ahead_of_time.report(tiny.get_config(), "v5e:2x4") == 0
    printed = capsys.readouterr().out
    assert "training step, per chip of 8" in printed
    assert "all-reduce" in printed
