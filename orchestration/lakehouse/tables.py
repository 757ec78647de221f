"""Reading the Delta tables without a JVM: versions, row counts, changes."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from orchestration.lakehouse.checked_query import CheckedQueries
from tickhouse.table_checksums import TableDamaged, open_table, require_changes

_SQL_NAMES = {"integer": "int", "long": "bigint"}
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
        opened = open_table(self.table_uri(table), version)
        files = pa.table(opened.get_add_actions(flatten=True))
        counts = files["num_records"] if "num_records" in files.column_names else None
        counted = counts is not None and counts.null_count == 0
        rows = (pc.sum(counts).as_py() or 0) if counted else opened.count()
        newest = f"max.{EVENT_TIME.get(table, 'timestamp')}"
        last = pc.max(files[newest]).as_py() if newest in files.column_names else None
        return TableContent(rows, files.num_rows, pc.sum(files["size_bytes"]).as_py() or 0, last)

    def columns(self, table: str) -> list[tuple[str, str, str | None]]:
        """Name, type (as SQL's DDL states it) and comment of each column. Raises TableNotFoundError."""
        fields = json.loads(open_table(self.table_uri(table)).schema().to_json())["fields"]
        return [(field["name"], _type_text(field["type"]), field["metadata"].get("comment")) for field in fields]

    def committed_at(self, table: str, version: int | None = None) -> datetime.datetime | None:
        """When a version (default: the newest) was committed; None when there is no such table yet.

        Of a version that has been cleaned out of the log, the newest tells instead.
        """
        opened = self._open(table)
        if opened is None:
            return None
        if version is not None and version < opened.version():
            with suppress(DeltaError):
                opened.load_as_version(version)
        return datetime.datetime.fromtimestamp(opened.history(1)[0]["timestamp"] / 1_000, datetime.UTC)

    def fingerprint(self, table: str, version: int) -> str | None:
        """What tells a version from another of the same number; None when its log is gone."""
        try:
            opened = open_table(self.table_uri(table), version)
        except TableDamaged:
            raise
        except DeltaError:
            return None
        paths = sorted(pa.table(opened.get_add_actions())["path"].to_pylist())
        return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:32]

    def query(self, sql: str, **tables: tuple[str, int | None]) -> pa.Table:
        """The rows of a SELECT over tables, each given as the name it has in `sql` = (table, version or None).

        Raises TableNotFoundError, TableDamaged, and DeltaError when a version cannot be read.
        """
        opened = {name: open_table(self.table_uri(table), version) for name, (table, version) in tables.items()}
        return pa.table(CheckedQueries(**opened).execute(sql).read_all())

    def added(self, table: str, first: int, last: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows that the versions `first` to `last`, both included, have added, batch by batch and in no order.

        A row that is replaced was removed and added. Raises TableDamaged before the first batch, and
        ChangesUnavailable, after some perhaps.
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
            opened = open_table(self.table_uri(table), last)
            require_changes(self.table_uri(table), first, last)
            reader = iter(
                opened.load_cdf(
                    starting_version=first,
                    ending_version=last,
                    columns=[*columns, "_change_type"],
                    predicate=condition,
                )
            )
        except TableDamaged:
            raise
        except DeltaError as error:
            raise ChangesUnavailable(f"{unavailable}: {error}") from error
        for batch in _batches(reader, lambda error: ChangesUnavailable(f"{unavailable}: {error}")):
            if batch.num_rows:
                yield batch.cast(plain_schema(batch.schema))

    def snapshot(
        self, table: str, version: int, columns: Sequence[str], day: datetime.date | None = None
    ) -> Iterator[pa.RecordBatch]:
        """All rows of a version, or those of a UTC day, batch by batch. Raises VersionUnavailable, as `added` does."""
        unreadable = f"{table}: version {version} cannot be read"
        selected = ", ".join(f'"{column}"' for column in columns)
        statement = f"SELECT {selected} FROM {table}" + (f" WHERE date = '{day}'" if day else "")  # noqa: S608
        try:
            opened = open_table(self.table_uri(table), version)
            reader = iter(CheckedQueries(**{table: opened}).execute(statement))
        except TableDamaged:
            raise
        except DeltaError as error:
            raise VersionUnavailable(f"{unreadable}: {error}") from error
        for batch in _batches(reader, lambda error: VersionUnavailable(f"{unreadable}: {error}")):
            yield batch.cast(plain_schema(batch.schema))

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return open_table(self.table_uri(table))
        except TableNotFoundError:
            return None


def _type_text(kind: Any) -> str:
    """A type of Delta's log, a name or a nested object, as SQL's DDL states it."""
    if isinstance(kind, str):
        return _SQL_NAMES.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{_type_text(kind['elementType'])}>"
    fields = ",".join(f"{field['name']}:{_type_text(field['type'])}" for field in kind["fields"])
    return f"struct<{fields}>"


def _batches(reader: Iterator[Any], refusal: Callable[[Exception], Exception]) -> Iterator[pa.RecordBatch]:
    """What the engine gives, batch by batch. `refusal`: what an error on the way is raised as."""
    while True:
        try:
            batch = next(reader)
        except StopIteration:
            return
        except Exception as error:
            # That a file was vacuumed shows only now, and as an Exception of no class of its own.
            raise refusal(error) from error
        yield pa.record_batch(batch)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The columns with types as every reader of Arrow knows them: the engine's own texts and bytes are views."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind.fields])
    return kind
