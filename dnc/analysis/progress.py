"""What an analysis is busy with, for whoever waits: messages at level INFO of the logger `dnc.analysis`."""

import contextlib
import logging
import time
from collections.abc import Iterator

LOGGER = logging.getLogger("dnc.analysis")


@contextlib.contextmanager
def stage(*names: str) -> Iterator[None]:
    """Two messages: "name: name ..." when the block begins; when it ends, the seconds it took, or "failed"."""
    LOGGER.info("%s ...", ": ".join(names))
    began = time.perf_counter()
    try:
        yield
    except BaseException:
        LOGGER.info("failed")
        raise
    LOGGER.info("%.1f s", time.perf_counter() - began)
