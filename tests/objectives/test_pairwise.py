"""What all losses of two embeddings of each example share: the definition in float64, gradients, types, invariants."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dnc.objectives.clip import clip_loss
from dnc.objectives.directional_collapse import directional_loss
from dnc.objectives.siglip import siglip_loss
from dnc.objectives.simclr import decoupled_nt_xent, nt_xent
from dnc.objectives.vicreg import vicreg_loss


def contrastive_reference(first, second, temperature=0.2, decoupled=False):
    """Anchor by anchor."""
    z = unit(np.concatenate([first, second]))
    b, total = len(first), 0.0
    for i in range(2 * b):
        partner = (i + b) % (2 * b)
        others = [j for j in range(2 * b) if j != i and not (decoupled and j == partner)]
        denominator = sum(math.exp(float(z[i] @ z[j]) / temperature) for j in others)
        total += -float(z[i] @ z[partner]) / temperature + math.log(denominator)
    return total / (2 * b)


def vicreg_reference(first, second, weights=(25.0, 25.0, 1.0)):
    b, p = first.shape
    mse = sum((first[i, j] - second[i, j]) ** 2 for i in range(b) for j in range(p)) / (b * p)
    hinge = penalty = 0.0
    for z in (first, second):
        mean = [sum(z[i, j] for i in range(b)) / b for j in range(p)]
        for j in range(p):
            for q in range(p):
                covariance = sum((z[i, j] - mean[j]) * (z[i, q] - mean[q]) for i in range(b)) / (b - 1)
                if j == q:
                    hinge += max(0.0, 1 - math.sqrt(covariance + 1e-4)) / p
                else:
                    penalty += covariance**2 / p
    return weights[0] * mse + weights[1] * hinge / 2 + weights[2] * penalty


def directional_reference(first, second, bound="cantelli", epsilon=1e-4):
    """Pair by pair."""
    b, p = first.shape
    pairs = [(i, j) for i in range(b) for j in range(b) if i != j]
    center = (first + second) / 2
    squared = {(i, j): float(np.sum((center[i] - center[j]) ** 2)) for i, j in pairs}
    floor = epsilon * sum(squared.values()) / len(pairs)
    total = 0.0
    for i, j in pairs:
        x = (float((first[i] - second[i]) @ (center[i] - center[j])) / (squared[i, j] + floor)) ** 2
        total += x / (1 + x) if bound == "cantelli" else x
    return p / 2 * total / len(pairs)


def clip_reference(images, texts, scale=12.0):
    logits, b = scale * unit(images) @ unit(texts).T, len(images)
    rows = [-logits[i, i] + math.log(sum(math.exp(logits[i, j]) for j in range(b))) for i in range(b)]
    columns = [-logits[i, i] + math.log(sum(math.exp(logits[j, i]) for j in range(b))) for i in range(b)]
    return (sum(rows) / b + sum(columns) / b) / 2


def siglip_reference(images, texts, scale=12.0, bias=-2.5):
    logits, b = scale * unit(images) @ unit(texts).T + bias, len(images)
    return sum(math.log1p(math.exp(-logits[i, j] if i == j else logits[i, j])) for i in range(b) for j in range(b)) / b


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class Loss(NamedTuple):
    of: Callable
    reference: Callable
    rtol: float
    learned: tuple[float, ...] = ()

    def __call__(self, first, second):
        return jax.jit(self.of)(first, second, *self.parameters())

    def parameters(self):
        return [jnp.asarray(x, float) for x in self.learned]


def contrastive(loss, temperature=0.2):
    settings = dict(temperature=temperature, decoupled=loss is decoupled_nt_xent)
    of = functools.partial(loss, temperature=temperature)
    return Loss(of, functools.partial(contrastive_reference, **settings), 2e-6)


def directional(**settings):
    of, reference = (functools.partial(f, **settings) for f in (directional_loss, directional_reference))
    return Loss(of, reference, 1e-5)


def vicreg(*weights):
    return Loss(lambda a, b: vicreg_loss(a, b, *weights), lambda a, b: vicreg_reference(a, b, weights), 2e-6)


LOSSES = {
    "nt_xent": contrastive(nt_xent),
    "decoupled_nt_xent": contrastive(decoupled_nt_xent),
    "clip": Loss(clip_loss, clip_reference, 1e-5, (math.log(12.0),)),
    "siglip": Loss(siglip_loss, siglip_reference, 1e-5, (math.log(12.0), -2.5)),
    "vicreg": vicreg(25.0, 25.0, 1.0),
    "directional": directional(),
    "directional, chebyshev": directional(bound="chebyshev"),
}
SETTINGS = LOSSES | {
    **{f"{loss.__name__} {t}": contrastive(loss, t) for loss in (nt_xent, decoupled_nt_xent) for t in (0.05, 1.0)},
    **{f"vicreg {w}": vicreg(*w) for w in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))},
    **{f"directional {bound} 0.1": directional(bound=bound, epsilon=0.1) for bound in ("cantelli", "chebyshev")},
}
OF_COSINES = ("nt_xent", "decoupled_nt_xent", "clip", "siglip")
OF_DISTANCES = ("directional", "directional, chebyshev")


def embeddings(b=6, p=5):
    first = 0.7 * jax.random.normal(jax.random.key(0), (b, p))
    return first, first + 0.35 * jax.random.normal(jax.random.key(1), (b, p))


@pytest.mark.parametrize("loss", SETTINGS.values(), ids=SETTINGS)
def test_the_loss_is_its_definition_in_float32_for_bfloat16_too(loss):
    for values in (embeddings(), [x.astype(jnp.bfloat16) for x in embeddings()]):
        wide = [np.asarray(x, np.float64) for x in values]
        expected = loss.reference(*wide)
        actual = loss(*values)
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, rtol=loss.rtol)
        with jax.enable_x64(True):
            np.testing.assert_allclose(loss(*map(jnp.asarray, wide)), expected, rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_match_finite_differences_of_the_learned_parameters_too(name):
    with jax.enable_x64(True):
        values = [jnp.asarray(np.asarray(x), "float64") for x in embeddings(b=4, p=3)]
        modes = ["rev"] if name == "clip" else ["fwd", "rev"]  # its scale has a gradient of its own
        loss = LOSSES[name]
        check_grads(jax.jit(loss.of), (*values, *loss.parameters()), order=1, modes=modes)


ORDER = np.random.default_rng(0).permutation(6)
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0].astype("float32")
ROWS = jnp.exp(jnp.linspace(-8.0, 8.0, 6))[:, None]


@pytest.mark.parametrize(
    ("change", "names", "rtol"),
    [
        (lambda first, second: (second, first), LOSSES, 1e-6),
        (lambda first, second: (first[ORDER], second[ORDER]), LOSSES, 1e-6),
        (lambda first, second: (first @ ROTATION, second @ ROTATION), (*OF_COSINES, *OF_DISTANCES), 1e-5),
        (lambda first, second: (first * ROWS, second / ROWS), OF_COSINES, 1e-5),
        (lambda first, second: (1e3 * first, 1e3 * second), OF_DISTANCES, 1e-4),
        (lambda first, second: (1e-3 * first, 1e-3 * second), OF_DISTANCES, 1e-4),
        (lambda first, second: (first + 100.0, second + 100.0), OF_DISTANCES, 1e-3),
        (lambda first, second: (first + 3.0, second + 3.0), ("vicreg",), 1e-5),
        (lambda first, second: (first[:, ::-1], second[:, ::-1]), ("vicreg",), 1e-6),
    ],
    ids=["swap", "permute", "rotate", "scale rows", "enlarge", "shrink", "far away", "translate", "other dimensions"],
)
def test_what_changes_nothing(change, names, rtol):
    for name in names:
        loss = LOSSES[name]
        np.testing.assert_allclose(loss(*change(*embeddings())), loss(*embeddings()), rtol=rtol, err_msg=name)


@pytest.mark.parametrize("loss", [*LOSSES.values(), contrastive(nt_xent, 1e-3), contrastive(decoupled_nt_xent, 1e-3)])
def test_degenerate_embeddings_and_temperatures_have_a_finite_loss_and_gradient(loss):
    first, second = embeddings()
    same = jnp.ones((6, 5))
    for values in ((first, second), (first.at[0].set(0.0), second), (0.0 * first, second), (same, same)):
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(jax.value_and_grad(loss, argnums=(0, 1))(*values)))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_one_example_is_refused(loss):
    with pytest.raises(ValueError, match="at least 2 examples in the batch, not 1"):
        loss(*embeddings(b=1))
