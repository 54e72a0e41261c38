"""Times of functions that run in turn, so that a machine whose speed drifts is fair to all."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np


def alternating(functions: Sequence[Callable[[], Any]], rounds: int = 7) -> list[float]:
    """Seconds of each function, the median over rounds in which all run in turn; each ran once before."""
    for function in functions:
        jax.block_until_ready(function())
    seconds = np.zeros((rounds, len(functions)))
    for row in seconds:
        for index, function in enumerate(functions):
            started = time.perf_counter()
            jax.block_until_ready(function())
            row[index] = time.perf_counter() - started
    return np.median(seconds, axis=0).tolist()


@contextmanager
def asked(python: str, script: Any, *arguments: Any) -> Iterator[Callable[[str], float]]:
    """A script in a process of another interpreter: each line sent to it is answered by a number."""
    command = [python, *map(str, (script, *arguments))]
    theirs = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=theirs, text=True) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(line: str) -> float:
            print(line, file=questions, flush=True)
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"{python} {script} ended, see its error above")
            return float(answer)

        yield ask
