"""Stopping before the end: SIGTERM, the time limit."""

import os
import signal

import jax
import pytest

from dnc.training.interruption import Interruption, is_lost_peer


def test_sigterm_is_kept_until_asked_for_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested()
        assert interruption.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def ctrl_c():
    """Not ignored, as it is in a job that a shell starts in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_ctrl_c_is_kept_until_asked_for_and_the_second_raises_at_once(capfd):
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        assert interruption.reason == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert "saving after this step" in capfd.readouterr().err


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.requested()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("processes", "message", "expected"),
    [
        (2, "UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:51590: Connection reset by peer", True),
        (2, "shapes differ", False),
        (1, "Connection reset by peer", False),
    ],
)
def test_a_lost_peer(processes, message, expected, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    error = RuntimeError("the step failed")
    error.__cause__ = ValueError(message)
    assert is_lost_peer(error) == expected


@pytest.mark.parametrize(("minutes", "requested"), [(0.0, True), (60.0, False), (None, False)])
def test_the_time_limit(minutes, requested):
    with Interruption(minutes) as interruption:
        assert interruption.requested() == requested


def test_the_limit_is_named():
    with Interruption(0.0) as interruption:
        assert interruption.reason == "the limit of 0 minutes"
