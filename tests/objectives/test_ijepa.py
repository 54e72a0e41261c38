"""I-JEPA: blocks against the authors' formulas, the loss against NumPy, what context and targets may see."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.objectives import IJEPA, ijepa
from tests.objectives.test_objectives import SETTINGS, batch_of, network_of

CHOICES = dict(target_scale=(0.15, 0.2), target_aspect=(0.75, 1.5), context_scale=(0.85, 1.0))


@pytest.mark.parametrize(("grid", "most"), [((14, 14), 40), ((16, 16), 54), ((8, 8), 12)])
def test_block_sizes_are_the_authors_and_leave_a_context(grid, most):
    targets = ijepa.block_sizes(grid, (0.15, 0.2), (0.75, 1.5))
    for i in (0, 123, 500, 999):
        u = (i + 0.5) / 1000
        patches, aspect = int(grid[0] * grid[1] * (0.15 + u * 0.05)), 0.75 + u * 0.75
        assert targets[i].tolist() == [round(math.sqrt(patches * aspect)), round(math.sqrt(patches / aspect))]
    assert targets.prod(axis=1).max() == most
    contexts = ijepa.block_sizes(grid, (0.85, 1.0), (1.0, 1.0))
    assert contexts[-1].tolist() == list(grid)
    left = contexts.prod(axis=1).min() - 4 * most
    assert left == (9 if grid != (8, 8) else 1)


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (6, 10)])
def test_blocks_are_rectangles_and_the_context_is_the_rest_of_its_own(grid):
    blocks = jax.jit(lambda key: ijepa.sample_blocks(key, 64, grid, targets=3, **CHOICES))
    last = np.zeros(2, bool)
    for seed in range(3):
        context, seen, targets, wanted = map(np.asarray, blocks(jax.random.key(seed)))
        assert len(set(wanted.sum(axis=-1).ravel())) == 1  # one size for the batch
        for i in range(64):
            taken = set()
            for patches, real in zip(targets[i], wanted[i], strict=True):
                rows, columns = np.divmod(patches[real], grid[1])
                h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
                assert len(set(patches[real])) == h * w == real.sum()
                last |= rows.max() == grid[0] - 1, columns.max() == grid[1] - 1
                taken |= set(patches[real])
            kept = context[i][seen[i]]
            assert len(kept) == len(set(kept)) >= 1
            assert not taken & set(kept)
            rows, columns = np.divmod(kept, grid[1])
            block = {
                r * grid[1] + c
                for r in range(rows.min(), rows.max() + 1)
                for c in range(columns.min(), columns.max() + 1)
            }
            assert block - taken == set(kept)  # all of the rectangle but the targets
            assert np.all(np.sort(kept) == kept)
    assert last.all()  # the last row and column are reached


def test_sizes_of_blocks_follow_their_distribution():
    """Over many keys: mean area of targets as over u, and every place equally likely."""
    areas = ijepa.block_sizes((14, 14), (0.15, 0.2), (0.75, 1.5)).prod(axis=1)
    sample = jax.jit(lambda key: ijepa.sample_blocks(key, 16, (14, 14)))
    drawn = np.array([np.asarray(sample(jax.random.key(seed)).targets_valid)[0, 0].sum() for seed in range(400)])
    assert set(drawn) <= set(areas)
    assert abs(drawn.mean() - areas.mean()) < 5 * areas.std() / 20


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match=r"4 targets of up to 4 patches can cover a context of 16: 4 x 4 patches"):
        ijepa.sample_blocks(jax.random.key(0), 2, (4, 4))


def smooth_l1(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def test_targets_are_standardized_as_by_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(1.0, 0.01, (2, 3, 7)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (7,)).numpy()
    np.testing.assert_allclose(ijepa.standardized(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-4)
    one, other = (torch.from_numpy(a) for a in (x, expected))
    expected = torch.nn.functional.smooth_l1_loss(one, other).item()
    everywhere = jnp.ones((2, 3), bool)[:, :, None]
    loss = ijepa.feature_loss(jnp.asarray(x)[:, :, None], jnp.asarray(other.numpy())[:, :, None], everywhere)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


loss_of = nnx.jit(IJEPA(**SETTINGS["ijepa"]).loss)


def test_the_loss_is_that_of_each_block_without_any_filling():
    """The objective end to end against one image and one block at a time, in arrays of just the right size."""
    network = network_of("ijepa")[1]
    batch, key = batch_of(2), jax.random.key(3)
    images = batch["views"][0]
    blocks = ijepa.sample_blocks(jax.random.split(key)[0], 2, (4, 4), targets=2)
    tokens = np.asarray(jax.jit(lambda x: network.encoder.tokens(x).patches)(images), np.float64)
    tokens = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)

    @jax.jit
    def prediction(image, keep, target):
        all_of = [jnp.ones((1, len(x)), bool) for x in (keep, target)]
        context = network.student.tokens(image[None], keep=keep[None]).patches
        return network.predictor(context, keep[None], all_of[0], target[None], all_of[1], (4, 4))[0]

    context, seen, targets, wanted = map(np.asarray, blocks)
    errors = []
    for i in range(2):
        for t in range(2):
            target = targets[i, t][wanted[i, t]]
            predicted = prediction(images[i], context[i][seen[i]], target)
            errors.append(smooth_l1(np.asarray(predicted) - tokens[i, target]))
    assert not np.all(seen)
    actual, metrics = loss_of(network, batch, key)
    np.testing.assert_allclose(actual, np.mean(np.concatenate(errors)), rtol=1e-5)
    np.testing.assert_allclose(metrics["target_std"], tokens.std(axis=(0, 1)).mean(), rtol=1e-4)


def test_pixels_of_the_targets_reach_the_loss_through_the_teacher_alone():
    """The student's predictions depend on context pixels only; the targets carry no gradient."""
    objective, network = network_of("ijepa")
    batch, key = batch_of(2), jax.random.key(3)
    blocks = ijepa.sample_blocks(jax.random.split(key)[0], 2, (4, 4), targets=2)

    def loss(images):
        return objective.loss(nnx.merge(*parts, copy=True), {**batch, "views": images}, key)[0]

    parts = nnx.split(network)
    gradient = np.asarray(jax.jit(jax.grad(loss))(batch["views"]))
    assert not gradient[1].any()
    patches = np.any(gradient[0].reshape(2, 4, 2, 4, 2, 3) != 0, axis=(2, 4, 5)).reshape(2, 16)
    for i in range(2):
        assert set(np.flatnonzero(patches[i])) == set(np.asarray(blocks.context[i][blocks.context_valid[i]]))


def test_a_collapsed_teacher_shows_in_the_metrics():
    network, batch = network_of("ijepa")[1], batch_of(2)
    _, metrics = loss_of(network, {**batch, "views": jnp.zeros_like(batch["views"])}, jax.random.key(0))
    assert metrics["feature_std"] < 1e-6
    _, metrics = loss_of(network, batch, jax.random.key(0))
    assert metrics["feature_std"] > 1e-2
    assert metrics["target_std"] > 1e-2
