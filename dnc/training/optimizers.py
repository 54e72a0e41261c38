"""Optimizers. Weight decay and layer-wise adaptation leave biases and normalization (ndim <= 1) alone."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnc import errors
from dnc.models.precision import at_least_float32
from dnc.training.schedules import cosine_between
from dnc.types import Array, Float, Int

NOT_HIDDEN = frozenset({"stem", "embed", "predict", "classifier"})  # modules, see `hidden_kernels`
_FANS = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)  # of a stack of kernels


def weights_only(params: Any) -> Any:
    """True for matrices and kernels, False for biases and normalization scales: parameters with ndim <= 1."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _promoting(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same under NumPy's rules of promotion, as optax corrects biases with float ** int32 and decays bfloat16 by a
    float32 schedule; updates keep their dtype.
    """

    def update(updates: Any, state: Any, params: Any | None = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            transformed, state = transformation.update(updates, state, params)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), transformed, updates), state

    return optax.GradientTransformation(transformation.init, update)


class TrustRatioState(NamedTuple):
    step: Int[Array, ""]


def scale_by_clipped_trust_ratio(
    learning_rate: optax.Schedule, trust_coefficient: float
) -> optax.GradientTransformation:
    """Multiply each tensor's update u by min(c ||p|| / (||u|| learning rate), 1), by 1 if p or u is zero.

    After the learning rate has multiplied it too, the step is never larger than that of plain SGD.
    """

    def init(params: Any) -> TrustRatioState:
        del params
        return TrustRatioState(step=jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any | None = None) -> tuple[Any, TrustRatioState]:
        if params is None:
            raise ValueError("a trust ratio needs the parameters: call update(updates, state, params)")
        rate = jnp.asarray(learning_rate(state.step), jnp.float32)

        def scale(u: Float[Array, "..."], p: Float[Array, "..."]) -> Float[Array, "..."]:
            # c ||p|| >= ||u|| rate means a ratio of at least 1; dividing only below it keeps zero norms and rates apart
            local, full = trust_coefficient * jnp.linalg.norm(p.ravel()), jnp.linalg.norm(u.ravel()) * rate
            clipped = (local < full) & (local > 0)
            return u * jnp.where(clipped, local / jnp.where(clipped, full, 1.0), 1.0)

        return jax.tree.map(scale, updates, params), TrustRatioState(state.step + 1)

    return optax.GradientTransformation(init, update)


def adamw(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p <- p - lr (adam(g) + weight_decay p)."""
    return _promoting(optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=weights_only))


def sgd(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Momentum SGD as PyTorch's: v <- momentum v + g + weight_decay p;  p <- p - lr v."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=weights_only),
        optax.trace(momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def lars(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    momentum: float = 0.9,
    trust_coefficient: float = 0.001,
    clip: bool = False,
) -> optax.GradientTransformation:
    """Layer-wise adaptive rate scaling (You et al. 2017), in the order of VICReg's and solo-learn's code.

    u = g + weight_decay p;  v <- momentum v + q u;  p <- p - lr v;    q = trust_coefficient ||p|| / ||u||

    Biases and normalization take plain momentum SGD steps without decay (q = 1, u = g). With `clip`, q is
    min(trust_coefficient ||p|| / (||u|| lr), 1): a layer's rate is the smaller of its local and the global one. That is
    solo-learn's `clip_lr`, but for its denominator ||g|| + weight_decay ||p||, an upper bound of ||u||.
    `optax.lars` multiplies by the learning rate before the momentum; the two agree while the rate is constant.
    """
    ratio = (
        scale_by_clipped_trust_ratio(learning_rate, trust_coefficient)
        if clip
        else optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
    )
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=weights_only),
        optax.masked(ratio, weights_only),
        optax.trace(momentum),
        optax.scale_by_learning_rate(learning_rate),
    )


def muon(
    learning_rate: optax.Schedule,
    *,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    beta: float = 0.95,
    iterations: int = 5,
    adam_rate: float = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    not_hidden: Sequence[str] = (),
) -> optax.GradientTransformation:
    """Momentum orthogonalized by Newton and Schulz's iteration (Jordan et al. 2024) for hidden kernels, else AdamW.

    m <- beta m + (1 - beta) g;    u = beta m + (1 - beta) g, m and g with their bias corrected (Nesterov)
    W <- W - lr (sqrt(max(1, fan out / fan in)) U V^T + weight_decay W),    u = U S V^T as a fan in x fan out matrix

    `hidden_kernels` decides which these are; `not_hidden` names further modules that AdamW trains. All other parameters
    take steps of `adamw` with `b1`, `b2`, `eps` at `adam_rate` times the learning rate. `iterations` of optax's quintic
    take the singular values to about 0.7 to 1.2; each costs three products with u, so that kernels of one shape are
    stacked and share them. u is at least float32.
    """

    def adam_schedule(step: Any) -> Any:
        return adam_rate * learning_rate(step)

    momentum = optax.contrib.scale_by_muon(
        ns_steps=iterations,
        beta=beta,
        weight_dimension_numbers=lambda stacks: jax.tree.map(lambda _: _FANS, stacks),
    )
    decay = optax.add_decayed_weights(weight_decay)
    orthogonalized = optax.chain(_in_stacks(momentum), decay, optax.scale_by_learning_rate(learning_rate))
    others = adamw(adam_schedule, weight_decay=weight_decay, b1=b1, b2=b2, eps=eps)

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda hidden: "muon" if hidden else "adamw", hidden_kernels(params, not_hidden))

    return optax.partition({"muon": _promoting(orthogonalized), "adamw": others}, labels)


def hidden_kernels(params: Any, not_hidden: Sequence[str] = ()) -> Any:
    """True for the parameters that `muon` orthogonalizes: what multiplies a hidden vector and makes a hidden vector.

    That is every parameter named `kernel`, the axes before its last taken as one, but for those of modules named in
    NOT_HIDDEN or `not_hidden`: as Muon's author advises, AdamW trains the layers that read the input (a stem, patch
    embeddings) and that give the output (a classifier, the prediction of pixels). By their names these are also the
    layers between the encoder and the narrower predictor of I-JEPA, and that into the decoder of MAE. Tables, tokens,
    positions and prototypes are not called kernels. The last layer of a projector, whose output is compared and not
    read, counts as hidden: in the quickstart AdamW there learns shape more slowly.

    Kernels of several layers in one array, or with an axis of heads before the last, would be taken as one matrix: name
    the modules of an encoder of your own that has such.
    """
    left = NOT_HIDDEN | {*not_hidden}

    def hidden(path: tuple[Any, ...], p: Any) -> bool:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        return p.ndim > 1 and "kernel" in names and left.isdisjoint(names)

    return jax.tree.map_with_path(hidden, params)


def _in_stacks(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation of kernels as matrices, fan in x fan out, in one array for all of one shape."""

    def stacks(tree: Any) -> dict[str, Float[Array, "s i o"]]:
        by_shape: dict[str, list[Float[Array, "i o"]]] = {}
        for kernel in jax.tree.leaves(tree):
            matrix = at_least_float32(kernel.reshape(-1, kernel.shape[-1]))
            by_shape.setdefault(f"{matrix.shape[0]}x{matrix.shape[1]}", []).append(matrix)
        return {shape: jnp.stack(matrices) for shape, matrices in by_shape.items()}

    def unstacked(transformed: Any, like: Any) -> Any:
        rest = {shape: iter(stack) for shape, stack in transformed.items()}

        def scaled(kernel: Float[Array, "..."]) -> Float[Array, "..."]:
            fan_out = kernel.shape[-1]
            fan_in = kernel.size // fan_out
            matrix = next(rest[f"{fan_in}x{fan_out}"]) * max(1.0, fan_out / fan_in) ** 0.5
            return matrix.reshape(kernel.shape).astype(kernel.dtype)

        return jax.tree.map(scaled, like)

    def init(params: Any) -> Any:
        return transformation.init(stacks(params))

    def update(updates: Any, state: Any, params: Any | None = None) -> tuple[Any, Any]:
        del params
        transformed, state = transformation.update(stacks(updates), state)
        return unstacked(transformed, updates), state

    return optax.GradientTransformation(init, update)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": adamw,
    "lars": lars,
    "muon": muon,
    "sgd": sgd,
}


SHARES = ("momentum", "beta", "b1", "b2")
POSITIVE = ("eps", "trust_coefficient")
NOT_NEGATIVE = ("weight_decay", "weight_decay_end", "adam_rate")


def _check(name: str, value: Any) -> None:
    """Raises ValueError for a number that no optimizer could use."""
    if name in SHARES and not 0 <= value < 1:
        raise ValueError(f"optimizer.{name}={value} is the share of a mean that is kept: give a value in [0, 1)")
    if name in POSITIVE and not 0 < value < math.inf:
        raise ValueError(f"optimizer.{name}={value} must be positive")
    if name in NOT_NEGATIVE and not 0 <= value < math.inf:
        raise ValueError(f"optimizer.{name}={value} must be at least 0")
    if name == "iterations" and not (value == int(value) and value >= 1):
        raise ValueError(f"optimizer.iterations={value} must be a whole number, at least 1")


def make_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    clip_norm: float | None = None,
    weight_decay_end: float | None = None,
    total_steps: int | None = None,
    **hyperparameters: Any,
) -> optax.GradientTransformation:
    """The optimizer `name` of OPTIMIZERS, after clipping the gradient to global norm `clip_norm` if that is given.

    weight_decay_end: where half a cosine takes the weight decay in `total_steps`; by default it is constant.
    `hyperparameters` are the keyword arguments of that function, for instance `weight_decay`.
    """
    if name not in OPTIMIZERS:
        raise errors.unknown("optimizer.name", name, OPTIMIZERS)
    known = [p.name for p in inspect.signature(OPTIMIZERS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for unknown in sorted(set(hyperparameters) - set(known)):
        hint = errors.hint(unknown, [*known, "clip_norm", "weight_decay_end"])
        raise ValueError(f"{name} has no hyperparameter {unknown!r}: {hint}")
    if clip_norm is not None and not (0 < clip_norm < math.inf):
        raise ValueError(f"clip_norm={clip_norm} must be positive; leave it out for no clipping")
    if weight_decay_end is not None:
        _check("weight_decay_end", weight_decay_end)
    for hyperparameter, value in hyperparameters.items():
        _check(hyperparameter, value)
    if weight_decay_end is not None:
        if total_steps is None:
            raise ValueError(
                f"weight_decay_end={weight_decay_end} needs total_steps: give the step at which it is reached"
            )
        start = hyperparameters.get("weight_decay", 0.0)
        hyperparameters["weight_decay"] = cosine_between(start, weight_decay_end, total_steps)
    schedule = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
    optimizer = OPTIMIZERS[name](schedule, **hyperparameters)
    return optimizer if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
