"""One UTC day of the result tables recomputed from the stored prices, late ticks included, and replaced.

- **Nothing is lost or doubled while streams run.** Rows are recomputed as far as both the prices and the table are
  complete. Those after that, which the streams are still adding to, are kept as they are: they are read, and the commit
  is made, under the table's lock (`spark_jobs.sinks.table_lock`).
- **A day is replaced by one commit,** or not touched at all when nothing would change.
- **What was done is recorded** (`orchestration.lakehouse.backfill_log`), valid with that very commit. After a kill some
  tables
  are replaced and the others not; a repetition replaces what is left.
- **Memory is bounded** by one symbol's ticks of a day and an hour of its results; the new rows wait in a file.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, PostCommitHookProperties, WriterProperties, write_deltalake
from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse import backfill_log, gap_log
from orchestration.lakehouse.backfill_log import Backfilled
from orchestration.lakehouse.snapshot import TableSnapshot, between, first_of, hours, last_of, moment, text
from orchestration.lakehouse.tables import Lakehouse
from orchestration.recompute.expected_rows import RESULT_TABLES, complete_until, late_included, pieces, stored
from orchestration.recompute.price_history import TABLE as PRICES
from orchestration.recompute.price_history import PriceHistory
from orchestration.recompute.result_rows import compare, to_arrow
from spark_jobs.compute import recompute
from spark_jobs.sinks.table_lock import table_lock
from tickhouse.contract.names import PASSAGE_HORIZON_MS
from tickhouse.contract.tables import arrow_schema
from tickhouse.table_checksums import data_files, note, require_files

_LOCK_SECONDS = 120.0
_FILE_BYTES = 64 * 2**20
_ROW_GROUP_ROWS = 65_536
"""A couple of hours of a symbol: readers of a stretch then skip most of the day."""
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class BackfillError(RuntimeError):
    """The day cannot be recomputed, or the table does not hold what it should; the text says what was found."""


@dataclass(frozen=True)
class TableBackfill:
    """What was done to one table."""

    table: str
    day: datetime.date
    rows_before: int
    rows_after: int
    changed: int
    """Rows that have other values than before."""
    added: int
    removed: int
    until: dict[str, datetime.datetime]
    """Symbol to the last timestamp that was recomputed."""
    version: int
    """The table's newest one afterwards."""
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def replaced(self) -> bool:
        """Whether anything had to be written."""
        return bool(self.changed or self.added or self.removed)

    def text(self) -> str:
        """One line for people."""
        rows = f"{self.table}: {self.rows_before:,} rows of {self.day} before, {self.rows_after:,} after"
        done = f"{self.changed:,} changed, {self.added:,} added, {self.removed:,} removed"
        outcome = f"{done}, version {self.version:,}" if self.replaced else "nothing to change"
        return "; ".join((f"{rows}; {outcome}, {self.seconds:.1f} s", *self.notes))


def backfill(
    lakehouse: Lakehouse, home: Path, day: datetime.date, lateness_ms: int, tables: Sequence[str] = RESULT_TABLES
) -> Iterator[TableBackfill]:
    """Replace a UTC day, table by table; says of each what was done. `home`: where the writers keep their locks.

    Raises BackfillError, TableBusy when a writer holds a table too long, and DeltaError or OSError when tables cannot
    be read or written: then that table is what it was, and those after it, too.
    """
    try:
        prices = PriceHistory(lakehouse.uri)
    except TableNotFoundError as error:
        raise BackfillError(
            f"there is no table {lakehouse.table_uri(PRICES)}: start the prices stream first"
        ) from error
    for table in tables:
        yield _Table(lakehouse, home, prices, table, day, lateness_ms).replace()


class _Table:
    def __init__(
        self, lakehouse: Lakehouse, home: Path, prices: PriceHistory, table: str, day: datetime.date, lateness_ms: int
    ) -> None:
        self._lakehouse = lakehouse
        self._home = home
        self._prices = prices
        self._table = table
        self._day = day
        self._lateness_ms = lateness_ms
        self._began = datetime.datetime.now(datetime.UTC)

    def replace(self) -> TableBackfill:
        self._home.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryFile(dir=self._home) as file,
            pq.ParquetWriter(file, arrow_schema(self._table)) as rows,
        ):
            # What takes long, and needs no lock: nothing but a backfill changes rows that are complete.
            seen = self._reader()
            recomputed = _Recomputed(self._prices, seen, self._day, self._lateness_ms)
            for batch in recomputed.batches():
                rows.write_batch(batch)
            if not recomputed.differs:
                before = _rows_of(seen, self._day)
                return self._report(recomputed, before, before, seen.opened.version())
            with table_lock(self._home, self._table, _LOCK_SECONDS):
                return self._commit(recomputed, seen, rows, file)

    def _reader(self) -> TableSnapshot:
        try:
            return TableSnapshot(self._lakehouse.uri, self._table)
        except TableNotFoundError as error:
            where = self._lakehouse.table_uri(self._table)
            raise BackfillError(f"there is no table {where}: start its stream first") from error

    def _commit(
        self, recomputed: _Recomputed, seen: TableSnapshot, rows: pq.ParquetWriter, file: IO[bytes]
    ) -> TableBackfill:
        newest = self._reader()
        if backfill_log.number(newest, self._day) != backfill_log.number(seen, self._day):
            raise BackfillError(f"{self._table}: another backfill of {self._day} came in between; run it again")
        before, count = _rows_of(newest, self._day), recomputed.rows
        for batch in recomputed.kept(newest):
            count += batch.num_rows
            rows.write_batch(batch)
        rows.close()
        total = self._lakehouse.content(self._table, newest.opened.version()).rows
        reach = self._prices.reach(
            first_of(self._day) - 1 - recompute.WARM_UP_MS, last_of(self._day) + PASSAGE_HORIZON_MS
        )
        records = [
            Backfilled(self._day, self._table, symbol, until, reach) for symbol, until in recomputed.until.items()
        ]
        backfill_log.append(self._lakehouse.uri, records, self._began)
        # What the commit takes from the day's files, for the feed of changes.
        require_files(newest.opened, [path for path in data_files(newest.opened) if f"date={self._day}/" in path])
        written = pq.ParquetFile(file)
        write_deltalake(
            newest.opened,
            pa.RecordBatchReader.from_batches(arrow_schema(self._table), written.iter_batches(recompute.TICKS_AT_ONCE)),
            mode="overwrite",
            predicate=f"date = '{self._day}'",
            target_file_size=_FILE_BYTES,
            writer_properties=WriterProperties(max_row_group_size=_ROW_GROUP_ROWS),
            commit_properties=CommitProperties(app_transactions=[backfill_log.transaction(self._day, self._began)]),
            post_commithook_properties=_NO_HOOKS,
        )
        note(newest.opened.table_uri)
        after = self._reader()
        left = self._lakehouse.content(self._table, after.opened.version()).rows
        if left != total - before + count:
            due = total - before + count
            raise BackfillError(f"{self._table}: {due} rows should be there after replacing {self._day}, not {left}")
        return self._report(recomputed, before, count, after.opened.version())

    def _report(self, recomputed: _Recomputed, before: int, after: int, version: int) -> TableBackfill:
        removed = before + recomputed.added - after
        return TableBackfill(
            self._table,
            self._day,
            before,
            after,
            recomputed.changed,
            recomputed.added,
            removed,
            {symbol: moment(until) for symbol, until in recomputed.until.items()},
            version,
            (datetime.datetime.now(datetime.UTC) - self._began).total_seconds(),
            tuple(self._notes(recomputed, removed)),
        )

    def _notes(self, recomputed: _Recomputed, removed: int) -> Iterator[str]:
        if not recomputed.until and not recomputed.kept_whole:
            yield "there are no prices of that day"
        if recomputed.kept_whole:
            yield f"not complete yet, and left as they are: {', '.join(recomputed.kept_whole)}"
        if removed and any(row["query"] == PRICES for row in gap_log.rows(self._lakehouse.uri)):
            yield "prices has gaps (see the table gaps): results of the ticks that it lacks are removed"


def _rows_of(reader: TableSnapshot, day: datetime.date) -> int:
    return int(reader.select("count(*) AS rows", f"date = '{day}'")["rows"][0].as_py())


class _Recomputed:
    """The rows of a day as they are to be, as far as they are complete, and how they differ from those of a version."""

    def __init__(self, prices: PriceHistory, reader: TableSnapshot, day: datetime.date, lateness_ms: int) -> None:
        self._prices = prices
        self._reader = reader
        self._day = day
        self._before, self._last = first_of(day) - 1, last_of(day)
        symbols = prices.table.symbols(day) | reader.symbols(day)
        self.until: dict[str, int] = {}
        """Symbol to the last timestamp of the day that is recomputed, in milliseconds."""
        newest_price, newest_result = prices.table.largest(symbols), reader.largest(symbols)
        for symbol in sorted(newest_price.keys() & newest_result.keys()):
            complete = complete_until(reader.name, newest_price[symbol], newest_result[symbol], lateness_ms)
            if complete > self._before:
                self.until[symbol] = min(complete, self._last)
        self.kept_whole = sorted(symbols - self.until.keys())
        self.rows = self.changed = self.added = self._surplus = 0

    @property
    def differs(self) -> bool:
        """Whether the day is to be another than it is; known when all batches have been taken."""
        return bool(self.changed or self.added or self._surplus)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recomputed rows. What they come to is counted as they are taken."""
        table = self._reader.name
        for symbol, until in self.until.items():
            every = late_included(self._prices, table, symbol, self._before, until)
            ticks = recompute.distinct(every.timestamps, every.prices)
            for piece in pieces(table, ticks, self._before, until):
                differences = compare(piece.rows, stored(self._reader, symbol, piece.after, piece.until))
                self.changed += len(differences.differing)
                self.added += len(differences.missing)
                self._surplus += len(differences.unexpected) + len(differences.duplicate)
                self.rows += len(piece.rows.times)
                yield to_arrow(table, symbol, piece.rows)

    def kept(self, reader: TableSnapshot) -> Iterator[pa.RecordBatch]:
        """The rows of the day, in a later version, that are not recomputed."""
        schema = arrow_schema(reader.name)
        for symbol in sorted(reader.symbols(self._day)):
            for after, until in hours(self.until.get(symbol, self._before), self._last):
                condition = f"symbol = {text(symbol)} AND {between(after, until)}"
                yield from reader.select(", ".join(schema.names), condition).cast(schema).to_batches()
