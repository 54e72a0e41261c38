"""Learning-rate schedules, and durations in steps, epochs or examples."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from dnc import errors

UNITS = ("steps", "epochs", "examples")


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int, end_fraction: float = 0.0) -> optax.Schedule:
    """Linear from 0 to `peak` in `warmup_steps`, then half a cosine to `end_fraction * peak` at `total_steps`.

    value(t) = peak * t / w                                                    t < w
    value(t) = peak * (e + (1 - e) * (1 + cos(pi (t - w) / (T - w))) / 2)      w <= t <= T, constant after
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} must be at least 0 and less than total_steps={total_steps}: shorten "
            "schedule.warmup or lengthen train.duration"
        )
    if not 0 < peak < math.inf:
        raise ValueError(f"peak={peak} must be positive: change schedule.peak")
    if not 0 <= end_fraction <= 1:
        raise ValueError(f"end_fraction={end_fraction} is a fraction of the peak: give a value in [0, 1]")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        t = jnp.asarray(step).astype(jnp.float32)
        warmup = t / max(warmup_steps, 1)
        progress = jnp.clip((t - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        cosine = end_fraction + (1 - end_fraction) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return peak * jnp.where(t < warmup_steps, warmup, cosine)

    return schedule


def cosine_between(start: float, end: float, total_steps: int) -> optax.Schedule:
    """Half a cosine from `start` at step 0 to `end` at `total_steps`: end + (start - end) (1 + cos(pi t / T)) / 2."""

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step).astype(jnp.float32) / total_steps, 0.0, 1.0)
        return end + (start - end) * (1 + jnp.cos(jnp.pi * progress)) / 2

    return schedule


def steps_in(duration: Mapping[str, int | float | None], batch_size: int, examples_per_epoch: int) -> int:
    """Optimizer steps in a duration given as exactly one of {"steps": x}, {"epochs": x} or {"examples": x}.

    Epochs and examples are counted in images drawn (two views of an image count once) and rounded up to whole steps.
    An epoch has examples_per_epoch // batch_size steps: a last partial batch is dropped.
    """
    chosen = {unit: value for unit, value in duration.items() if value is not None}
    for unit in sorted(set(duration) - set(UNITS)):
        raise errors.unknown(f"duration={dict(duration)}: unit", unit, UNITS)
    if len(chosen) != 1:
        raise ValueError(f"duration={dict(duration)} must give exactly one of {UNITS}, not {len(chosen)}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    ((unit, value),) = chosen.items()
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"duration={dict(duration)} must be finite and not negative")
    if unit == "steps":
        if value != int(value):
            raise ValueError(f"duration={dict(duration)}: steps must be a whole number")
        return int(value)
    if unit == "examples":
        return _ceil(value / batch_size)
    if examples_per_epoch < batch_size:
        raise ValueError(
            f"batch_size={batch_size} is larger than examples_per_epoch={examples_per_epoch}: "
            "an epoch would have no step"
        )
    return _ceil(value * (examples_per_epoch // batch_size))


def _ceil(steps: int | float) -> int:
    return math.ceil(round(steps, 6))  # 0.1 epochs of 30 steps are 3 steps, though 0.1 * 30 > 3 in floating point
