"""Checkpoints: what is restored is what was saved, or it is refused and the one before is taken."""

import contextlib
import gc
import json
import os
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from flax import nnx

from dnc.training.checkpoint import Checkpoints
from dnc.training.state import TrainState

# A failed read leaves coroutines of Orbax's behind, which complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """Those complaints come while this file's filter holds."""
    yield
    gc.collect()


def state_at(step: int) -> TrainState:
    network = nnx.Linear(64, 64, rngs=nnx.Rngs(step))
    _, state = TrainState.create(network, optax.adam(1e-3))
    return state._replace(step=jnp.asarray(step, jnp.int32))


@pytest.fixture
def directory(tmp_path):
    checkpoints = Checkpoints(epath.Path(tmp_path / "checkpoints"), keep=[0, 5])
    for step in (0, 3, 5, 7):
        checkpoints.save(step, state_at(step), {"pending": [], "note": f"step {step}"})
    checkpoints.close()
    return tmp_path / "checkpoints"


def newest(directory):
    return Checkpoints(epath.Path(directory)).restore_newest(state_at(0))


def largest_file(directory, step):
    files = [path for path in (directory / str(step)).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_the_newest_comes_back_with_its_record(directory):
    restored = newest(directory)
    assert restored.record == {"pending": [], "note": "step 7"}
    assert restored.damaged == {}
    for one, two in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state_at(7)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_taken(directory, damage):
    damage(largest_file(directory, 7))
    restored = newest(directory)
    assert int(restored.state.step) == 5
    assert list(restored.damaged) == [7]
    assert "step 7 is damaged" in restored.damaged[7]
    assert not (directory / "7").exists()
    assert [path.name.split("_")[0] for path in (directory.parent / "damaged_checkpoints").iterdir()] == ["7"]


@pytest.mark.parametrize("part", ["state", "record"])
def test_every_single_file_counts(directory, part):
    """Whichever file of a checkpoint is gone, it is either not needed or noticed: never other numbers."""
    files = [path for path in (directory / "7" / part).rglob("*") if path.is_file()]
    unharmed = []
    for path in files:
        content = path.read_bytes()
        path.unlink()
        checkpoints = Checkpoints(epath.Path(directory), read_only=True)
        with contextlib.suppress(ValueError):  # a file may be missed; then the numbers must be right all the same
            restored = checkpoints.restore(state_at(0), 7)
            np.testing.assert_array_equal(restored.state.params["kernel"], state_at(7).params["kernel"])
            unharmed.append(path.name)
        path.write_bytes(content)
    assert len(unharmed) < len(files)


def test_every_flipped_byte_of_metadata_is_noticed(directory):
    """But for the files that only say when the checkpoint was made."""
    checkpoints = Checkpoints(epath.Path(directory), read_only=True)
    files = [path for path in (directory / "7").rglob("*") if path.is_file() and path.parent.name != "d"]
    metadata = [path for path in files if path.name not in ("_CHECKPOINT_METADATA", "commit_success.txt")]
    assert {"_METADATA", "_sharding", "metadata", "manifest.ocdbt"} <= {path.name for path in metadata}
    for path in metadata:
        content = path.read_bytes()
        for place in range(0, len(content), max(1, len(content) // 5)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(ValueError, match="the checkpoint of step 7 is damaged"):
                checkpoints.restore(state_at(0), 7)
        path.write_bytes(content)
    assert int(checkpoints.restore(state_at(0), 7).state.step) == 7


def test_digests_open_no_file_outside_the_checkpoint(directory):
    digests = directory / "7" / "digests.json"
    for name in ("/dev/zero", "../../elsewhere"):
        digests.write_text(json.dumps({name: 0}))
        with pytest.raises(ValueError, match=f"damaged.*{name} is not what was saved"):
            Checkpoints(epath.Path(directory), read_only=True).restore(state_at(0), 7)


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(directory):
    path = largest_file(directory, 7)
    path.rename(directory.parent / "elsewhere")
    path.symlink_to(path)  # as for a permission, which root always has, opening it fails
    with pytest.raises(OSError, match=path.name):
        newest(directory)
    assert (directory / "7").exists()
    assert not (directory.parent / "damaged_checkpoints").exists()


def test_the_clock_may_jump_while_a_checkpoint_is_saved(tmp_path, monkeypatch):
    def jumping():
        asked[0] += threading.current_thread().name == "async_save"
        return now() + 30 * 86_400 * (asked[0] > 1)

    now, asked = time.time, [0]
    monkeypatch.setattr(time, "time", jumping)
    checkpoints = Checkpoints(epath.Path(tmp_path))
    checkpoints.save(1, state_at(1), {})
    checkpoints.close()
    assert asked[0] > 1
    assert (tmp_path / "1").exists()


def test_when_none_can_be_read_nothing_is_touched(directory):
    for step in (0, 5, 7, 3):
        if (directory / str(step)).exists():
            truncate(largest_file(directory, step))
    before = sorted(path.name for path in directory.iterdir())
    with pytest.raises(
        OSError, match=r"none of the checkpoints .* choose a new --workdir. Of the newest: .*step 7 is damaged"
    ):
        newest(directory)
    assert sorted(path.name for path in directory.iterdir()) == before


def test_a_step_without_checkpoint_is_named(directory):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 4: there are \[0, 5, 7\]"):
        Checkpoints(epath.Path(directory), read_only=True).restore(state_at(0), 4)
