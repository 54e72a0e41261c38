"""Optimizers against float64 NumPy loops written from the papers' and PyTorch code's update rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from dnc.models.heads import Projector
from dnc.training.build import build
from dnc.training.optimizers import hidden_kernels, make_optimizer, scale_by_clipped_trust_ratio, weights_only
from dnc.training.schedules import warmup_cosine
from tests.training import runs

STEPS = 6
SCHEDULE = warmup_cosine(0.3, 2, STEPS)
SHAPES = {"conv": (3, 3, 2, 4), "dense": (4, 3), "zero": (2, 2), "bias": (3,), "scale": (4,), "scalar": ()}


def problem():
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    params["zero"] *= 0
    gradients = [{name: rng.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]
    gradients[1]["dense"] = np.zeros(SHAPES["dense"])
    return params, gradients


def run(optimizer):
    params, gradients = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem())
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(actual, expected):
    for name in SHAPES:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def reference(direction):
    """In float64: a step is the rate times `direction(p, gradient, t, rate, memory)`, which may change its memory."""
    params, gradients = problem()
    memory = {name: [0.0, 0.0] for name in SHAPES}
    for t in range(STEPS):
        rate = float(SCHEDULE(t))
        for name, p in params.items():
            params[name] = p - rate * direction(p, gradients[t][name], t, rate, memory[name])
    return params


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("trust", [0.001, 0.02, 1.0])
def test_lars_matches_the_float64_loop(clip, trust):
    def lars(p, u, t, rate, memory):
        if p.ndim > 1:
            u = u + 0.1 * p
            p_norm, u_norm = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(u**2))
            ratio = trust * p_norm / u_norm if p_norm > 0 and u_norm > 0 else 1.0
            if clip and p_norm > 0 and u_norm > 0:
                ratio = min(ratio / rate, 1.0) if rate > 0 else 1.0
            u = ratio * u
        memory[0] = 0.9 * memory[0] + u
        return memory[0]

    settings = {"weight_decay": 0.1, "momentum": 0.9, "trust_coefficient": trust, "clip": clip}
    assert_close(run(make_optimizer("lars", SCHEDULE, **settings)), reference(lars))


def test_lars_equals_optax_while_the_rate_is_constant():
    theirs = optax.lars(0.2, 0.1, weight_decay_mask=weights_only, trust_coefficient=0.01, trust_ratio_mask=weights_only)
    assert_close(run(make_optimizer("lars", 0.2, weight_decay=0.1, trust_coefficient=0.01)), run(theirs))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_matches_the_float64_loop(momentum):
    def sgd(p, g, t, rate, memory):
        memory[0] = momentum * memory[0] + g + (0.1 * p if p.ndim > 1 else 0.0)
        return memory[0]

    assert_close(run(make_optimizer("sgd", SCHEDULE, weight_decay=0.1, momentum=momentum)), reference(sgd))


def test_adamw_matches_the_float64_loop_and_decays_weights_only():
    def adamw(p, g, t, rate, memory):
        memory[:] = 0.9 * memory[0] + 0.1 * g, 0.95 * memory[1] + 0.05 * g**2
        step = memory[0] / (1 - 0.9 ** (t + 1)) / (np.sqrt(memory[1] / (1 - 0.95 ** (t + 1))) + 1e-8)
        return step + (0.05 * p if p.ndim > 1 else 0.0)

    assert_close(run(make_optimizer("adamw", SCHEDULE, weight_decay=0.05, b2=0.95)), reference(adamw))


HIDDEN = {"conv": (3, 3, 2, 4), "wide": (3, 8), "tall": (8, 3), "again": (2, 3, 3, 4)}  # two are 18 x 4 matrices
OTHERS = {"stem": (3, 3, 3, 4), "predict": (4, 2)}


def kernels():
    """Gradients of six steps, for hidden kernels, for others, and for a bias of each."""
    rng = np.random.default_rng(1)

    def tree():
        shapes = (HIDDEN | OTHERS).items()
        return {name: {"kernel": rng.normal(size=s), "bias": rng.normal(size=s[-1])} for name, s in shapes}

    return tree(), [tree() for _ in range(STEPS)]


def orthogonalized(u, iterations):
    """Jordan's quintic in float64, on u over its Frobenius norm: odd in the singular values, so without transposing."""
    x = u / np.sqrt(np.sum(u**2))
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize(("iterations", "beta"), [(3, 0.95), (5, 0.95), (5, 0.6)])
def test_muon_matches_the_float64_loop(iterations, beta):
    params, gradients = kernels()
    adam = dict(weight_decay=0.1) if beta == 0.95 else dict(weight_decay=0.1, b1=0.5, b2=0.8, eps=0.01)
    optimizer = make_optimizer("muon", SCHEDULE, beta=beta, iterations=iterations, adam_rate=0.3, **adam)
    beside = make_optimizer("adamw", lambda step: 0.3 * SCHEDULE(step), **adam)

    def run(optimizer):
        actual, steps = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, gradients))
        state, update = optimizer.init(actual), jax.jit(optimizer.update)
        for step in steps:
            updates, state = update(step, state, actual)
            actual = optax.apply_updates(actual, updates)
        return actual

    actual, adam = run(optimizer), run(beside)
    for name, shape in HIDDEN.items():
        w, m = params[name]["kernel"].reshape(-1, shape[-1]), 0.0
        for t in range(STEPS):
            g = gradients[t][name]["kernel"].reshape(w.shape)
            m = beta * m + (1 - beta) * g
            # Nesterov's momentum looks a step ahead, and so does its correction
            u = beta * m / (1 - beta ** (t + 2)) + (1 - beta) * g / (1 - beta ** (t + 1))
            direction = max(1.0, w.shape[1] / w.shape[0]) ** 0.5 * orthogonalized(u, iterations)
            w = w - float(SCHEDULE(t)) * (direction + 0.1 * w)
        np.testing.assert_allclose(actual[name]["kernel"], w.reshape(shape), rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(actual[name]["bias"], adam[name]["bias"])
    for name in OTHERS:
        jax.tree.map(np.testing.assert_array_equal, actual[name], adam[name])


def test_one_step_of_muon_by_hand():
    """A gradient diag(3, 4) has norm 5; x -> 3.4445 x - 4.775 x^3 + 2.0315 x^5 takes .6 to 1.1933 and .8 to .9766.

    The first bias corrections leave u = (.95 / .0975 * .05 + 1) g, a multiple of g.
    """
    params = {"hidden": {"kernel": jnp.ones((2, 2))}}
    gradient = {"hidden": {"kernel": jnp.diag(jnp.array([3.0, 4.0]))}}
    optimizer = make_optimizer("muon", 0.1, iterations=1)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    expected = [[-0.119327, 0.0], [0.0, -0.097648]]
    np.testing.assert_allclose(updates["hidden"]["kernel"], expected, rtol=1e-4, atol=1e-7)


def test_muon_takes_bfloat16_parameters_and_keeps_their_momentum_in_float32():
    params, gradients = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), kernels())
    optimizer = make_optimizer("muon", 0.1, weight_decay=0.1)
    updates, state = optimizer.update(gradients[0], optimizer.init(params), params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"bfloat16"}
    changing = make_optimizer("muon", 0.1, weight_decay=0.1, weight_decay_end=0.2, total_steps=4)
    after = optax.apply_updates(params, changing.update(gradients[0], changing.init(params), params)[0])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after)} == {"bfloat16"}
    momentum = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 3]
    assert {leaf.shape for leaf in momentum} == {(2, 18, 4), (1, 3, 8), (1, 8, 3)}
    assert {leaf.dtype.name for leaf in momentum} == {"float32"}


@pytest.mark.parametrize(
    ("objective", "not_hidden"),
    [
        ("simclr", {"encoder.stem.conv"}),
        ("supervised", {"encoder.stem.conv", "classifier"}),
        ("mae", {"encoder.embed", "decoder.embed", "decoder.predict"}),
        ("ijepa", {"student.embed", "predictor.embed", "predictor.predict"}),
        ("dino", {"student.embed"}),
        ("clip", {"encoder.stem.conv"}),
    ],
)
def test_hidden_kernels_are_all_but_those_of_modules_named_otherwise(objective, not_hidden):
    state = jax.eval_shape(build(runs.config_of(objective))._create)[1]
    flat = nnx.to_flat_state(hidden_kernels(state.params))
    hidden = {".".join(map(str, path)): jax.tree.leaves(value)[0] for path, value in flat}
    kernels = {name.removesuffix(".kernel") for name in hidden if name.endswith(".kernel")}
    assert {name for name, is_hidden in hidden.items() if is_hidden} == {f"{k}.kernel" for k in kernels - not_hidden}
    assert kernels >= not_hidden


def test_further_modules_can_be_left_to_adamw():
    params = {"heads": {"query": {"kernel": jnp.ones((4, 2, 3))}}, "dense": {"kernel": jnp.ones((4, 4))}}
    assert hidden_kernels(params, ["query"]) == {"heads": {"query": {"kernel": False}}, "dense": {"kernel": True}}
    optimizer = make_optimizer("muon", 0.1, not_hidden=("query",))
    momenta = [leaf.shape for leaf in jax.tree.leaves(optimizer.init(params)) if leaf.ndim == 3]
    assert sorted(momenta) == [(1, 4, 4), (4, 2, 3), (4, 2, 3)]  # of Muon, and the two of AdamW


@pytest.mark.parametrize("name", ["adamw", "lars", "muon", "sgd"])
def test_weight_decay_follows_half_a_cosine_to_its_end(name):
    """Without a gradient and with momentum 0, p <- p (1 - rate decay(t))."""
    settings = {
        "adamw": {},
        "sgd": {"momentum": 0.0},
        "lars": {"momentum": 0.0, "trust_coefficient": 1e6, "clip": True},
        "muon": {},
    }
    optimizer = make_optimizer(name, 0.5, weight_decay=0.04, weight_decay_end=0.4, total_steps=4, **settings[name])
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    state, expected = optimizer.init(params), 3.0
    for t in range(6):  # constant after the end
        updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        decay = 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * min(t / 4, 1))) / 2
        expected *= 1 - 0.5 * decay
        np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5)
        np.testing.assert_array_equal(params["bias"], 3.0)


def test_masks_follow_a_network():
    head = Projector(5, (4, 3), norm=True, rngs=nnx.Rngs(0))
    params = nnx.state(head, nnx.Param)
    mask = dict(nnx.to_flat_state(weights_only(params)))
    assert {".".join(map(str, path)): bool(jax.tree.leaves(value)[0]) for path, value in mask.items()} == {
        "layers.0.kernel": True,
        "norms.0.scale": False,
        "norms.0.bias": False,
        "last.kernel": True,
        "last.bias": False,
    }
    for name in ("adamw", "lars", "muon", "sgd"):
        optimizer = make_optimizer(name, 0.1, weight_decay=0.5)
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        moved = {".".join(map(str, path)) for path, u in nnx.to_flat_state(updates) if np.any(u[...])}
        assert moved == {"layers.0.kernel", "last.kernel"}, name


def test_the_gradient_is_clipped_to_a_global_norm_before_anything_else():
    params = {"a": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
    gradients = {"a": jnp.full((1, 1), 3.0), "b": jnp.full(1, 4.0)}
    optimizer = make_optimizer("sgd", 1.0, momentum=0.0, clip_norm=1.0)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose([updates["a"][0, 0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)
    small = jax.tree.map(lambda g: g / 100, gradients)
    updates, _ = optimizer.update(small, optimizer.init(params), params)
    np.testing.assert_allclose([updates["a"][0, 0], updates["b"][0]], [-0.03, -0.04], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("adam", 0.1), {}, "name='adam' is not known: did you mean 'adamw'"),
        (("zzz", 0.1), {}, r"choose one of \['adamw', 'lars', 'muon', 'sgd'\]"),
        (
            ("adamw", 0.1),
            {"weight_deca": 0.1},
            "adamw has no hyperparameter 'weight_deca': did you mean 'weight_decay'",
        ),
        (("sgd", 0.1), {"trust_coefficient": 0.1}, "sgd has no hyperparameter 'trust_coefficient'"),
        (("sgd", 0.1), {"clip_norm": 0.0}, "clip_norm=0.0"),
        (("sgd", 0.1), {"clip_norm": float("nan")}, "clip_norm=nan"),
        (("sgd", 0.1), {"momentum": 1.0}, r"optimizer.momentum=1.0 .* \[0, 1\)"),
        (("adamw", 0.1), {"b1": -0.1}, r"optimizer.b1=-0.1"),
        (("adamw", 0.1), {"eps": 0.0}, r"optimizer.eps=0.0 must be positive"),
        (("adamw", 0.1), {"weight_decay": -2.0}, r"optimizer.weight_decay=-2.0 must be at least 0"),
        (("muon", 0.1), {"adam_rate": -0.2}, r"optimizer.adam_rate=-0.2"),
        (("muon", 0.1), {"iterations": 2.5}, r"optimizer.iterations=2.5 must be a whole number"),
        (("muon", 0.1), {"iterations": 0}, r"optimizer.iterations=0 must be a whole number"),
        (("adamw", 0.1), {"weight_decay": 0.04, "weight_decay_end": 0.4}, "weight_decay_end=0.4 needs total_steps"),
    ],
)
def test_unknown_names_are_answered_with_their_neighbors(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(*arguments, **settings)


def test_a_trust_ratio_without_parameters_is_an_error():
    ratio = scale_by_clipped_trust_ratio(optax.constant_schedule(0.1), 0.001)
    params = {"kernel": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="needs the parameters"):
        ratio.update(params, ratio.init(params))
