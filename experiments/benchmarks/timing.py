"""Times of functions that run in turn, so that a machine whose speed drifts is fair to all."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def alternating(functions: Sequence[Callable[[], Any]], rounds: int = 7) -> list[float]:
    """Seconds of each function, the median over rounds in which all run in turn; each ran once before."""
    for function in functions:
        jax.block_until_ready(function())
    seconds = np.zeros((rounds, len(functions)))
    for one in seconds:
        for index, function in enumerate(functions):
            started = time.perf_counter()
            jax.block_until_ready(function())
            one[index] = time.perf_counter() - started
    return np.median(seconds, axis=0).tolist()
