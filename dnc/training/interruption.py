"""Reasons to stop before the last step, with everything saved: a signal, a time limit, a full disk."""

import os
import signal
import threading
import time
from types import TracebackType
from typing import Any

from dnc import distributed, errors

INTERRUPTED = 75  # exit code (EX_TEMPFAIL): saved, start the same command again to go on

_PEER_PHRASES = ("Gloo", "heartbeat", "by peer", "NCCL", "coordination service", "CoordinationService")


class Interruption:
    """Watches for SIGTERM and Ctrl-C, inside a `with` block, and for the time limit, in minutes.

    The process goes on until the loop asks, so that the current step is finished and saved. A second Ctrl-C does what
    it did before the block: it raises KeyboardInterrupt at once. A signal that the process ignores stays ignored.
    """

    def __init__(self, stop_after: float | None = None) -> None:
        self._stop_after = stop_after
        self._deadline = None if stop_after is None else time.monotonic() + 60 * stop_after
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only here
            for number in (signal.SIGTERM, signal.SIGINT):
                if (before := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, _: object) -> None:
        self._signal = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self._before[self._signal])
            if distributed.is_lead():  # `print` could be what the signal has interrupted
                os.write(2, b"\nCtrl-C: saving after this step; once more stops at once, without saving\n")

    @property
    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def requested(self) -> bool:
        """Whether any process is to stop; every process must ask at the same steps."""
        return distributed.any_process(self._signal is not None or self._late)

    @property
    def reason(self) -> str:
        if self._signal is not None:
            return "Ctrl-C" if self._signal == signal.SIGINT else self._signal.name
        return f"the limit of {self._stop_after:g} minutes" if self._late else "another process"


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error, or one that led to it, means that another process of the run has ended."""
    messages = map(str, errors.chain(error))
    return not distributed.is_alone() and any(phrase in text for text in messages for phrase in _PEER_PHRASES)


def must_end_run(error: BaseException) -> bool:
    """Whether an error while measuring ends the run all the same: files or other processes are gone."""
    return isinstance(error, OSError) or is_lost_peer(error)
