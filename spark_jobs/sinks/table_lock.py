"""One writer at a time for each Delta table.

Why it is needed: Delta itself keeps two writers apart that commit at once, as exactly one can create the next file of
the log. But whoever compacts a table, or replaces a day of it, compares it with what it was before, and that holds only
while nobody else commits. (And Delta's Java writer, should someone's own Spark write here, replaces on a local file
system whatever another process commits at the same moment: it looks, then renames.)

The lock is a file of the home. The process that commits holds it: for a stream that is the worker of the task.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tickhouse.file_lock import LockHeld, held


class TableBusy(Exception):
    """Another writer has held the table's lock for as long as this one was willing to wait."""


@contextmanager
def table_lock(home: Path, table: str, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock of a table in this process. Raises TableBusy. Not for two threads of one process."""
    try:
        with held(_lock_file(home, table), timeout_seconds):
            yield
    except LockHeld as error:
        raise TableBusy(f"another writer has held the table {table} for {timeout_seconds:.0f} s") from error


def _lock_file(home: Path, table: str) -> Path:
    return home.absolute() / "locks" / f"{table}.lock"
