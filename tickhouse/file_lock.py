"""A lock on a file that lasts exactly as long as the process that holds it.

It is a POSIX record lock, the kernel's: a holder that is merely suspended keeps it, one that is killed lets go of it at
once. What a stream writes its JVM writes, and a JVM whose Python was killed may write on for a moment: therefore it can
be the JVM of a Spark session that holds it. It says nothing to processes on other machines.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # whoever maintains tables has no Spark
    pass

_LOOK_SECONDS = 0.02


class LockHeld(Exception):
    """Another process has held the lock for as long as this one was willing to wait."""


@contextmanager
def held(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the lock in this process; the file's folder is created. Raises LockHeld. Not for two threads at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        wait(lambda: _try(file), path, wait_seconds)
        yield  # closing the file gives the lock back


def _try(file: BinaryIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def wait(attempt: Callable[[], bool], path: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while not attempt():
        if time.monotonic() > deadline:
            raise LockHeld(f"another process has held {path} for {wait_seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)
