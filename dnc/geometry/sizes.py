"""How much is computed at once: pieces that fit a CPU's cache, few large operations on accelerators.

The platform is asked for while a program is traced: by default the first device's, `compiled_for` replaces it for
programs that are compiled for devices that are not here.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of each kind of work goes into one step of a loop.

    rows: of samples in class blocks, whose sums are formed together. product_rows: the same for outer products of
    one class. columns: of a product of long vectors. queries: whose geometry is made together. distances: between
    queries and references, or queries and centroids. elements: of what predictions and bounds are made of. near: of
    more than twice as many classes, those whose samples a block of queries is held against, and near_queries of which
    there are in it; fewer than classes, so that those of their own are among them.
    """

    rows: int
    product_rows: int
    columns: int
    queries: int
    distances: int
    elements: int
    near: int
    near_queries: int


CPU = Sizes(
    rows=2**10,
    product_rows=2**8,
    columns=2**12,
    queries=2**9,
    distances=2**24,
    elements=2**21,
    near=2**7,
    near_queries=2**6,
)
ACCELERATOR = Sizes(
    rows=2**13,
    product_rows=2**11,
    columns=2**16,
    queries=2**11,
    distances=2**27,
    elements=2**24,
    near=2**9,
    near_queries=2**8,
)

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


def sizes() -> Sizes:
    """For the platform that the program at hand is traced for."""
    return CPU if (_platform.get() or jax.default_backend()) == "cpu" else ACCELERATOR


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Trace programs for a platform, "tpu", "gpu" or "cpu", on any other.

    Programs are kept by their arguments' shapes: one that was traced before is not traced again.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)
