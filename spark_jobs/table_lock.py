"""One writer at a time for each Delta table.

Belongs here: the lock that whoever commits to a table holds from before it reads the table's version until its commit
is there. Does not belong here: the lock's mechanism (`file_lock`), or what is written (`archive`, `prices`; table
maintenance in the orchestration).

Why it is needed: a Delta commit is the creation of the next file of the log, and exactly one writer may create it. On a
local file system Delta's Java writer looks whether the file is there and then renames its own to that name, which
replaces whatever has come in between; it is safe only among the threads of one JVM. Another process that commits in
that moment loses its commit without a word, and a reader may have seen it by then. (The Rust writer creates the file
only where there is none: it replaces nothing, but can be replaced.) With this lock there is no such moment.

The lock is a file of the home. The process that commits holds it: for a stream that is the JVM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spark_jobs.file_lock import LockHeld, held, held_by_jvm

if TYPE_CHECKING:  # whoever maintains tables has no Spark
    from pyspark.sql import SparkSession


class TableBusy(Exception):
    """Another writer has held the table's lock for as long as this one was willing to wait."""


@contextmanager
def table_lock(home: Path, table: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a table in this process. Raises TableBusy. Not for two threads of one process."""
    try:
        with held(_lock_file(home, table), timeout_seconds):
            yield
    except LockHeld as error:
        raise _busy(table, timeout_seconds) from error


@contextmanager
def table_lock_of_jvm(spark: SparkSession, home: Path, table: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a table in the JVM of a session. Raises TableBusy."""
    try:
        file = held_by_jvm(spark, _lock_file(home, table), timeout_seconds)
    except LockHeld as error:
        raise _busy(table, timeout_seconds) from error
    try:
        yield
    finally:
        file.close()


def _lock_file(home: Path, table: str) -> Path:
    return home.absolute() / "locks" / f"{table}.lock"


def _busy(table: str, timeout_seconds: float) -> TableBusy:
    return TableBusy(f"another writer has held the table {table} for {timeout_seconds:.0f} s")
