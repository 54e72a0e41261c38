"""Stopping before the end: SIGTERM, the time limit, and what counts as a disk that cannot be written."""

import errno
import os
import signal

import pytest

from dnc.training.interruption import Interruption, is_disk_error


def test_sigterm_is_kept_until_asked_for_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested()
        assert interruption.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("minutes", "requested"), [(0.0, True), (60.0, False), (None, False)])
def test_the_time_limit(minutes, requested):
    with Interruption(minutes) as interruption:
        assert interruption.requested() == requested


def test_the_limit_is_named():
    with Interruption(0.0) as interruption:
        assert interruption.reason == "the limit of 0 minutes"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (ValueError("INTERNAL: writing: No space left on device [source locations]"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (ValueError("shapes differ"), False),
    ],
)
def test_disk_errors(error, expected):
    assert is_disk_error(error) == expected
    outer = RuntimeError("the save failed")
    outer.__cause__ = error
    assert is_disk_error(outer) == expected
