"""Keeping the Delta tables small: many small files become few, and what no version needs any more is removed.

What keeps it exact:

- **One writer at a time.** Each commit here, like each commit of the streams, is made under the table's lock
  (`spark_jobs.sinks.table_lock`), and the lock is let go between partitions. So nothing is compared with what somebody
  else changes meanwhile.
- **Nothing from memory.** The table is opened anew whenever the lock is taken, and no hook of a commit writes a
  checkpoint: that is done last, of the version that is there then.
- **The rows are those of before.** A compaction says that it changes no data, so the change feed does not show it, and
  the number of rows is compared under the lock.
- **Nothing damaged is passed on.** All files are compared with their checksums first (`tickhouse.table_checksums`), and
  those that are compacted once more, under the lock.
- **Nothing young is removed.** Removed files stay for the retention, at least a week: open snapshots and late readers
  of the change feed go on. What nobody's log knows, left by a killed writer, is removed at that age, too.

A kill at any moment leaves the table as it was or as it is to be; files that were written for nothing are orphans, and
the version that could have been cleaned up is cleaned up by the next run.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse.tables import Lakehouse
from spark_jobs.sinks.table_lock import table_lock
from tickhouse.contract.tables import COLUMNS
from tickhouse.places import local_path
from tickhouse.table_checksums import damaged, data_files, forget, note, note_all, open_table, require_files

LEAST_RETENTION_DAYS = 7
"""Delta's own: a query or a load that takes longer than that is not expected."""
_LOCK_SECONDS = 120.0
_DATA_FILE = re.compile(r"(^|/)((part|cdc)-[^/]+\.parquet|deletion_vector_[^/]+\.bin)$")
"""How writers of Delta tables name what they write."""
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class MaintenanceError(RuntimeError):
    """The table does not hold what it held; the text says what was found."""


@dataclass(frozen=True)
class Policy:
    """How small is too small, how many are too many, and how old is old."""

    target_file_bytes: int = 128 * 2**20
    min_small_files: int = 16
    """So many files of less than half the target in one partition are made fewer."""
    retention_days: int = LEAST_RETENTION_DAYS
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a retention that would take files away from readers."""
        if self.retention_days < LEAST_RETENTION_DAYS:
            raise ValueError(f"removed files are kept for at least {LEAST_RETENTION_DAYS} days")


@dataclass(frozen=True)
class PartitionFiles:
    """The files of one partition: the sizes in bytes."""

    date: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class TableReport:
    """What was done to a table, or would be (`dry_run`)."""

    table: str
    partitions: tuple[str, ...]
    """Those that were compacted, by date."""
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed_files: int
    version: int
    """The newest one afterwards."""
    seconds: float
    note: str = ""

    def text(self) -> str:
        """One line for people."""
        done = (
            f"{self.table}: {self.files_before:,} files of {_mib(self.bytes_before)} became {self.files_after:,} of "
            f"{_mib(self.bytes_after)} ({len(self.partitions)} partitions compacted), {self.removed_files:,} old files "
            f"removed, version {self.version:,}, {self.seconds:.1f} s"
        )
        return f"{done}; {self.note}" if self.note else done


@dataclass(frozen=True)
class Reader:
    """Whoever reads the changes of a table: up to which version, and when. None: it does not go by versions (yet)."""

    version: int | None
    read_at: datetime.datetime | None = None
    unknown: str | None = None
    """Why it cannot be known how far it has got."""


NOBODY = Reader(None)
"""A table whose changes nobody reads."""


def due(partitions: Sequence[PartitionFiles], policy: Policy) -> list[str]:
    """The dates of the partitions that are worth compacting, the oldest first."""
    small = policy.target_file_bytes / 2
    return sorted(
        partition.date
        for partition in partitions
        if sum(size < small for size in partition.sizes) >= policy.min_small_files
    )


def held_back(reader: Reader, version: int, now: datetime.datetime, policy: Policy) -> str:
    """Why nothing may be removed from a table of that version yet; empty when it may.

    What a reader has still to read was committed after it read last. A day before the retention would let go of that,
    nothing is removed until the reader has come on.
    """
    if reader.unknown is not None:
        return reader.unknown
    if reader.version is None or reader.version >= version or reader.read_at is None:
        return ""
    if now - reader.read_at < datetime.timedelta(days=policy.retention_days - 1):
        return ""
    return f"nothing is removed while version {reader.version}, read at {reader.read_at:%F %T}, is the last that was"


class Maintenance:
    """The tables of a lakehouse whose writers keep their locks in `home`."""

    def __init__(self, lakehouse: Lakehouse, home: Path, policy: Policy) -> None:
        self._lakehouse = lakehouse
        self._home = home
        self._policy = policy

    def maintain(self, table: str, reader: Reader = NOBODY) -> TableReport | None:
        """Compact, remove what is old, and clean the log; None when there is no such table.

        Nothing is removed that `reader` still has to read. Raises TableBusy when a writer holds the table too long, and
        MaintenanceError when the rows are not those of before.
        """
        began = datetime.datetime.now(datetime.UTC)
        try:
            opened = self._open(table)
        except TableNotFoundError:
            return None
        strange = {field.name for field in opened.schema().fields} - {column.name for column in COLUMNS[table]}
        if strange:
            raise MaintenanceError(
                f"{self._lakehouse.table_uri(table)} has the columns {', '.join(sorted(strange))}, so Tickhouse did "
                "not make it: it is left alone"
            )
        self._require_whole(table)
        before = self._lakehouse.content(table)
        dates = due(_partitions(opened), self._policy)
        committed = False
        if not self._policy.dry_run:
            for date in dates:
                committed |= self._compact(table, date)
        removed, note = 0, held_back(reader, opened.version(), began, self._policy)
        if not note:
            removed, note = self._remove_old(table)
            if (committed or removed) and not self._policy.dry_run:
                self._clean_log(table)
        if not self._policy.dry_run:
            with self._held(table):
                note_all(self._lakehouse.table_uri(table))
        after = self._lakehouse.content(table)
        if self._policy.dry_run:
            note = f"dry run: nothing was done; {note}".rstrip("; ")
        return TableReport(
            table,
            tuple(dates),
            before.files,
            after.files,
            before.size_bytes,
            after.size_bytes,
            removed,
            self._open(table).version(),
            (datetime.datetime.now(datetime.UTC) - began).total_seconds(),
            note,
        )

    def _require_whole(self, table: str) -> None:
        """Read all files of a table, and tell of all that are damaged: nobody may have asked them for long."""
        found = damaged(self._lakehouse.table_uri(table))
        if found:
            raise MaintenanceError("\n".join(map(str, found)))

    def _open(self, table: str) -> DeltaTable:
        return open_table(self._lakehouse.table_uri(table))

    @contextmanager
    def _held(self, table: str) -> Iterator[DeltaTable]:
        """The table as it is while nobody else commits to it."""
        with table_lock(self._home, table, _LOCK_SECONDS):
            yield self._open(table)

    def _compact(self, table: str, date: str) -> bool:
        with self._held(table) as opened:
            rows = self._lakehouse.content(table, opened.version()).rows
            require_files(opened, [path for path in data_files(opened) if f"date={date}/" in path])
            done = opened.optimize.compact(
                partition_filters=[("date", "=", date)],
                target_size=self._policy.target_file_bytes,
                # The streams need the machine more.
                max_concurrent_tasks=1,
                post_commithook_properties=_NO_HOOKS,
            )
            note(opened.table_uri)
            left = self._lakehouse.content(table).rows
        if left != rows:
            raise MaintenanceError(f"{table}: {rows} rows became {left} by compacting {date}")
        return bool(done["numFilesRemoved"])

    def _remove_old(self, table: str) -> tuple[int, str]:
        """Remove what no version needs; returns how many files, and what there is to say of it.

        Where there are files of others, only what the table's log tells of is removed: files that a killed writer left
        are then not to be told from those.
        """
        hours = 24 * self._policy.retention_days
        # Looking takes longer than removing, and is of the past: what is old and unused stays so.
        found = self._open(table).vacuum(retention_hours=hours, dry_run=True, full=True)
        others = [name for name in found if not _DATA_FILE.search(name)]
        said = f"{len(others)} files that no writer of tables made stay, {others[0]} among them" if others else ""
        if not found or (self._policy.dry_run and not others):
            return len(found), said
        with self._held(table) as opened:
            removed = opened.vacuum(
                retention_hours=hours,
                dry_run=self._policy.dry_run,
                full=not others,
                post_commithook_properties=_NO_HOOKS,
            )
            note(opened.table_uri)
        return len(removed), said

    def _clean_log(self, table: str) -> None:
        with self._held(table) as opened:
            folder = local_path(opened.table_uri)
            if folder is not None:
                forget(folder, f"_delta_log/{opened.version():020}.checkpoint.parquet")
            opened.create_checkpoint()
            opened.cleanup_metadata()
            note(opened.table_uri)


def _partitions(opened: DeltaTable) -> list[PartitionFiles]:
    files = pa.table(opened.get_add_actions(flatten=True))
    sizes: dict[str, list[int]] = {}
    for date, size in zip(files["partition.date"].to_pylist(), files["size_bytes"].to_pylist(), strict=True):
        sizes.setdefault(str(date), []).append(size)
    return [PartitionFiles(date, tuple(found)) for date, found in sizes.items()]


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
