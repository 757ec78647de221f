"""One `tickhouse up` at a time for each home: the lock that says so, and who holds it.

Belongs here: the lock. Does not belong here: what its holder does (`orchestration.stack`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(RuntimeError):
    """Another process holds the home; the text says which and what to do."""


@contextmanager
def only_instance(home: Path) -> Iterator[None]:
    """Hold the home's lock, creating the home. Raises AlreadyRunning. A holder that is killed lets go of it."""
    home.mkdir(parents=True, exist_ok=True)
    with _path(home).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"the home {home} is in use by process {holder(home)}: `tickhouse down` it") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder(home: Path) -> int | None:
    """The pid of the process that holds the home's lock; None when nobody does."""
    try:
        file = _path(home).open("r", encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
        return None


def _path(home: Path) -> Path:
    return home / "tickhouse.lock"
