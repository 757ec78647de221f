"""One `tickhouse up` at a time for each home: the lock that says so, and who holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK = "tickhouse.lock"
_GLANCE_SECONDS = 1.0
"""Longer than anyone holds the lock who only looks whether it is held, and than a holder takes to write its pid."""


class AlreadyRunning(RuntimeError):
    """Another process holds the home; the text says which and what to do."""


@contextmanager
def only_instance(home: Path) -> Iterator[None]:
    """Hold the home's lock, creating the home. Raises AlreadyRunning. A holder that is killed lets go of it."""
    deadline = time.monotonic() + _GLANCE_SECONDS
    while True:
        home.mkdir(parents=True, exist_ok=True)
        with _path(home).open("a+", encoding="utf-8") as file:
            while not _try_lock(file, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise AlreadyRunning(
                        f"The home {home} is in use by process {holder(home)}: stop it with "
                        f"`tickhouse down --home {home}`."
                    )
                time.sleep(0.02)
            if _is_in_place(file, home):
                with _saying_who(file):
                    yield
                return


def _is_in_place(file: IO[str], home: Path) -> bool:
    """Whether the lock that is held is still the home's: a removal, which holds it as well, deletes it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), _path(home).stat())
    except FileNotFoundError:
        return False


@contextmanager
def _saying_who(file: IO[str]) -> Iterator[None]:
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    try:
        yield
    finally:
        file.truncate(0)


def holder(home: Path) -> int | None:
    """The pid of the process that holds the home's lock; None when nobody does."""
    try:
        file = _path(home).open("r", encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    deadline = time.monotonic() + _GLANCE_SECONDS
    with file:
        while not _try_lock(file, fcntl.LOCK_SH):
            file.seek(0)
            text = file.read()
            if text.isdigit():
                return int(text)
            if time.monotonic() > deadline:
                raise AlreadyRunning(f"The home {home} is locked by a process that does not say which it is.")
            time.sleep(0.02)
        return None


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _path(home: Path) -> Path:
    return home / LOCK
