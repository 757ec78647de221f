"""The clock that tests set: a running process sees it, and no wait gets longer or shorter."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_clock import FakeClock

# The conditions of C's library wait until a moment of the wall clock.
_PROGRAM = """
import ctypes, datetime, sys, threading, time

class Moment(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

library = ctypes.CDLL(None)
for _ in sys.stdin:
    began = time.monotonic()
    threading.Event().wait(0.05)
    time.sleep(0.05)
    mutex, condition = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
    library.pthread_mutex_lock(mutex)
    whole, part = divmod(time.time_ns() + 50_000_000, 1_000_000_000)
    library.pthread_cond_timedwait(condition, mutex, ctypes.byref(Moment(whole, part)))
    now = datetime.datetime.now(datetime.UTC).timestamp()
    print(time.time(), now, library.time(None), time.monotonic() - began, flush=True)
"""


def test_a_running_process_sees_it_and_waits_as_long_as_ever(tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    command = [sys.executable, "-c", _PROGRAM]
    environment = {**os.environ, **clock.environment}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for offset in (0, -3_600, 7_200.25, -0.75):
            clock.set(offset)
            child.stdin.write("\n")
            child.stdin.flush()
            *moments, waited = map(float, child.stdout.readline().split())
            assert moments == [pytest.approx(time.time() + offset, abs=1.5)] * 3
            assert 0.15 <= waited < 2
        child.stdin.close()
