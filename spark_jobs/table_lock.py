"""One writer at a time for each Delta table.

Belongs here: the lock that whoever commits to a table holds from before it reads the table's version until its commit
is there. Does not belong here: what is written (`archive`, `prices`; table maintenance in the orchestration).

Why it is needed: a Delta commit is the creation of the next file of the log, and exactly one writer may create it. On a
local file system Delta's Java writer looks whether the file is there and then renames its own to that name, which
replaces whatever has come in between; it is safe only among the threads of one JVM. Another process that commits in
that moment loses its commit without a word, and a reader may have seen it by then. (The Rust writer creates the file
only where there is none: it replaces nothing, but can be replaced.) With this lock there is no such moment.

It is a POSIX record lock on a file of the home, held by the process that commits: for a stream that is the JVM, not the
Python that drives it, because a JVM whose Python was killed may still commit. Whatever happens to its holder, the
lock ends with it, and a holder that is merely suspended keeps it. It says nothing to writers on other machines.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # whoever maintains tables has no Spark
    from pyspark.sql import SparkSession

_LOOK_SECONDS = 0.02


class TableBusy(Exception):
    """Another writer has held the table's lock for as long as this one was willing to wait."""


@contextmanager
def table_lock(home: Path, table: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a table in this process. Raises TableBusy. Not for two threads of one process."""
    with _lock_file(home, table).open("ab") as file:

        def attempt() -> bool:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return False
            return True

        _wait(attempt, table, timeout_seconds)
        yield  # closing the file gives the lock back


@contextmanager
def table_lock_of_jvm(spark: SparkSession, home: Path, table: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a table in the JVM of a session. Raises TableBusy."""
    jvm: Any = spark.sparkContext._jvm
    file = jvm.java.io.RandomAccessFile(str(_lock_file(home, table)), "rw")
    try:
        channel = file.getChannel()
        _wait(lambda: channel.tryLock() is not None, table, timeout_seconds)
        yield
    finally:
        file.close()


def _lock_file(home: Path, table: str) -> Path:
    folder = home.absolute() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{table}.lock"


def _wait(attempt: Callable[[], bool], table: str, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not attempt():
        if time.monotonic() > deadline:
            raise TableBusy(f"another writer has held the table {table} for {timeout_seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)
