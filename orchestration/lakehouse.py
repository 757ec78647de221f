"""Reading the Delta tables without a JVM: versions, row counts, changes.

Here: what sensors, the MongoDB load and the status need to know of a table, through `deltalake`.
Not here: writing tables (the stream jobs do), or what is done with the rows (`orchestration.mongo_load`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

EVENT_TIME = {"rejects": "ingested_at"}
"""Which column tells how far a table has got, where it is not `timestamp`."""


class ChangesUnavailable(RuntimeError):
    """The table can no longer tell what changed since that version (its log was cleaned up); read all of it instead."""


class VersionUnavailable(RuntimeError):
    """A version of the table can no longer be read: files of it were removed."""


@dataclass(frozen=True)
class TableVersion:
    """Which table is there, and its newest version. A table made anew has another id."""

    table_id: str
    version: int


@dataclass(frozen=True)
class TableContent:
    """How much a version of a table holds."""

    rows: int
    files: int
    size_bytes: int
    last_event_time: datetime.datetime | None


class Lakehouse:
    """The folder of Delta tables at `uri`: a path, or any URI that `deltalake` reads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def table_uri(self, table: str) -> str:
        """Where one table is."""
        return f"{self.uri}/{table}"

    def version(self, table: str) -> TableVersion | None:
        """The newest version; None when there is no such table yet."""
        opened = self._open(table)
        return None if opened is None else TableVersion(str(opened.metadata().id), opened.version())

    def content(self, table: str, version: int | None = None) -> TableContent:
        """What a version (default: the newest) holds, from the log alone. Raises TableNotFoundError."""
        opened = DeltaTable(self.table_uri(table), version=version)
        files = pa.table(opened.get_add_actions(flatten=True))
        counts = files["num_records"] if "num_records" in files.column_names else None
        counted = counts is not None and counts.null_count == 0
        rows = (pc.sum(counts).as_py() or 0) if counted else opened.count()
        newest = f"max.{EVENT_TIME.get(table, 'timestamp')}"
        last = pc.max(files[newest]).as_py() if newest in files.column_names else None
        return TableContent(rows, files.num_rows, pc.sum(files["size_bytes"]).as_py() or 0, last)

    def columns(self, table: str) -> list[tuple[str, str, str | None]]:
        """Name, type and comment of each column. Raises TableNotFoundError."""
        return [
            (column.name, _type_text(column), column.metadata.get("comment"))
            for column in DeltaTable(self.table_uri(table)).schema().fields
        ]

    def added(self, table: str, first: int, last: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows that the versions `first` to `last`, both included, have added, batch by batch and in no order.

        A row that is replaced was removed and added. Raises ChangesUnavailable, after some batches perhaps.
        """
        return self._changes(table, first, last, columns, ("insert", "update_postimage"))

    def removed(self, table: str, first: int, last: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows that these versions have removed, in the same way; what only moved to other files is not among them."""
        return self._changes(table, first, last, columns, ("delete", "update_preimage"))

    def _changes(
        self, table: str, first: int, last: int, columns: Sequence[str], kinds: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        unavailable = f"{table}: no changes from version {first} to {last}"
        condition = " OR ".join(f"_change_type = '{kind}'" for kind in kinds)
        try:
            opened = DeltaTable(self.table_uri(table), version=last)
            reader = iter(
                opened.load_cdf(
                    starting_version=first,
                    ending_version=last,
                    columns=[*columns, "_change_type"],
                    predicate=condition,
                )
            )
        except DeltaError as error:
            raise ChangesUnavailable(f"{unavailable}: {error}") from error
        while True:
            try:
                batch = next(reader)
            except StopIteration:
                return
            except Exception as error:
                # That a file of the log's was vacuumed shows only now, and as an Exception of no class of its own.
                raise ChangesUnavailable(f"{unavailable}: {error}") from error
            if batch.num_rows:
                yield _without_views(pa.record_batch(batch))

    def snapshot(
        self, table: str, version: int, columns: Sequence[str], day: datetime.date | None = None
    ) -> Iterator[pa.RecordBatch]:
        """All rows of a version, or those of a UTC day, batch by batch. Raises VersionUnavailable, as `added` does."""
        selected = ", ".join(f'"{column}"' for column in columns)
        statement = f"SELECT {selected} FROM {table}" + (f" WHERE date = '{day}'" if day else "")  # noqa: S608
        try:
            opened = DeltaTable(self.table_uri(table), version=version)
            reader = iter(QueryBuilder().register(table, opened).execute(statement))
        except DeltaError as error:
            raise VersionUnavailable(f"{table}: version {version} cannot be read: {error}") from error
        while True:
            try:
                batch = next(reader)
            except StopIteration:
                return
            except Exception as error:
                # As for changes: a missing file is an Exception of no class of its own.
                raise VersionUnavailable(f"{table}: version {version} cannot be read: {error}") from error
            yield pa.record_batch(batch)

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(self.table_uri(table))
        except TableNotFoundError:
            return None


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with texts in Arrow's usual form: much cannot be done yet with the one that the engine gives."""
    return batch.cast(pa.schema([(field.name, _without_view(field.type)) for field in batch.schema]))


def _without_view(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_view(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_view(field.type)) for field in kind.fields])
    return kind


def _type_text(column: Field) -> str:
    try:
        return str(pa.field(column.to_arrow()).type)
    except (TypeError, ValueError):
        return str(column.type)
