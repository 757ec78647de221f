"""A request to stop, made by a signal handler of the waiting thread itself."""

from __future__ import annotations

import signal
import time

from spark_jobs.shutdown import StopRequest


def test_made_from_a_handler_while_waiting() -> None:
    request = StopRequest()
    assert not request.wait(0.01)
    earlier = signal.signal(signal.SIGALRM, lambda *_: request.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        began = time.monotonic()
        assert request.wait(10)
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert request.is_set()
    assert request.wait(10), "an earlier request is found at once"
