"""One UTC day of the result tables recomputed from the stored prices, late ticks included, and replaced.

Here: which rows are replaced and how. Not here: the computation and how far tables are complete
(`orchestration.recomputation`), bringing MongoDB in line (`orchestration.mongo_load`), or Dagster (`.history`).

- **Nothing is lost or doubled while streams run.** Rows are recomputed as far as both the prices and the table are
  complete. Those after that, which the streams are still adding to, are kept as they are. The table is read, and the
  commit made, under the table's lock (`spark_jobs.table_lock`).
- **A day is replaced by one commit,** or not touched at all when nothing would change.
- **What was done is recorded** (`orchestration.backfill_table`), valid with that very commit. After a kill some tables
  are replaced and the others not; a repetition replaces what is left.
- **Memory is bounded** by one symbol's ticks of a day and an hour of its results.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, WriterProperties, write_deltalake
from deltalake.exceptions import TableNotFoundError

from orchestration import backfill_table, gap_table
from orchestration.backfill_table import Backfilled
from orchestration.lakehouse import Lakehouse
from orchestration.price_history import TABLE as PRICES
from orchestration.price_history import PriceHistory
from orchestration.recomputation import RESULT_TABLES, complete_until, late_included, pieces, stored
from orchestration.result_rows import compare, schema_of, to_arrow
from orchestration.table_reader import TableReader, between, first_of, hours, last_of, text
from spark_jobs import recompute
from spark_jobs.contract import PASSAGE_HORIZON_MS
from spark_jobs.table_lock import table_lock

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
        raise BackfillError(f"there is no table {lakehouse.table_uri(PRICES)}: start the prices stream first") from error
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
        try:
            looked = self._recomputed()
        except TableNotFoundError as error:
            where = self._lakehouse.table_uri(self._table)
            raise BackfillError(f"there is no table {where}: start its stream first") from error
        # Finding out whether anything would change takes the longest, and needs no lock.
        for _ in looked.batches():
            pass
        if not looked.differs:
            return self._report(looked)
        with table_lock(self._home, self._table, _LOCK_SECONDS):
            return self._commit()

    def _recomputed(self) -> _Recomputed:
        reader = TableReader(self._lakehouse.uri, self._table)
        return _Recomputed(self._prices, reader, self._day, self._lateness_ms)

    def _commit(self) -> TableBackfill:
        recomputed = self._recomputed()
        rows = self._lakehouse.content(self._table, recomputed.version).rows
        first, last = first_of(self._day) - 1 - recompute.WARM_UP_MS, last_of(self._day) + PASSAGE_HORIZON_MS
        reach = self._prices.reach(first, last)
        records = [
            Backfilled(self._day, self._table, symbol, until, reach) for symbol, until in recomputed.until.items()
        ]
        backfill_table.append(self._lakehouse.uri, records, self._began)
        # A handle of its own: the other one is read from while this one writes.
        write_deltalake(
            DeltaTable(self._lakehouse.table_uri(self._table)),
            pa.RecordBatchReader.from_batches(schema_of(self._table), recomputed.batches()),
            mode="overwrite",
            predicate=f"date = '{self._day}'",
            target_file_size=_FILE_BYTES,
            writer_properties=WriterProperties(max_row_group_size=_ROW_GROUP_ROWS),
            commit_properties=CommitProperties(
                app_transactions=[backfill_table.transaction(self._day, self._began)]
            ),
            post_commithook_properties=_NO_HOOKS,
        )
        left = self._lakehouse.content(self._table).rows
        due = rows - recomputed.rows_before + recomputed.rows
        if left != due:
            raise BackfillError(f"{self._table}: {due} rows should be there after replacing {self._day}, not {left}")
        return self._report(recomputed)

    def _report(self, recomputed: _Recomputed) -> TableBackfill:
        found = self._lakehouse.version(self._table)
        assert found is not None
        return TableBackfill(
            self._table,
            self._day,
            recomputed.rows_before,
            recomputed.rows,
            recomputed.changed,
            recomputed.added,
            recomputed.removed,
            {symbol: _EPOCH + until * _MILLISECOND for symbol, until in recomputed.until.items()},
            found.version,
            (datetime.datetime.now(datetime.UTC) - self._began).total_seconds(),
            tuple(self._notes(recomputed)),
        )

    def _notes(self, recomputed: _Recomputed) -> Iterator[str]:
        if recomputed.kept_whole:
            yield f"not complete yet, and left as they are: {', '.join(recomputed.kept_whole)}"
        if recomputed.removed and any(row["query"] == PRICES for row in gap_table.rows(self._lakehouse.uri)):
            yield "prices has gaps (see the table gaps): results of the ticks that it lacks are removed"


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


class _Recomputed:
    """A day of a version of a table as it is to be, and how that differs from what is there."""

    def __init__(self, prices: PriceHistory, reader: TableReader, day: datetime.date, lateness_ms: int) -> None:
        self._prices = prices
        self._reader = reader
        self._before, self._last = first_of(day) - 1, last_of(day)
        self._symbols = sorted(prices.table.symbols(day) | reader.symbols(day))
        self.version = reader.opened.version()
        self.until: dict[str, int] = {}
        """Symbol to the last timestamp of the day that is recomputed, in milliseconds."""
        newest_price, newest_result = prices.table.largest(self._symbols), reader.largest(self._symbols)
        for symbol in newest_price.keys() & newest_result.keys():
            complete = complete_until(reader.name, newest_price[symbol], newest_result[symbol], lateness_ms)
            if complete > self._before:
                self.until[symbol] = min(complete, self._last)
        self.kept_whole = [symbol for symbol in self._symbols if symbol not in self.until]
        self.rows_before = int(reader.select("count(*) AS rows", f"date = '{day}'")["rows"][0].as_py())
        self.rows = self.changed = self.added = 0

    @property
    def removed(self) -> int:
        """How many rows that are there will not be there."""
        return self.rows_before + self.added - self.rows

    @property
    def differs(self) -> bool:
        """Whether the day is to be another than it is; known when all batches have been taken."""
        return bool(self.changed or self.added or self.removed)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows of the day. What they come to is counted as they are taken."""
        table = self._reader.name
        schema = schema_of(table)
        for symbol in self._symbols:
            until = self.until.get(symbol, self._before)
            if until > self._before:
                every = late_included(self._prices, table, symbol, self._before, until)
                ticks = recompute.distinct(every.timestamps, every.prices)
                for piece in pieces(table, ticks, self._before, until):
                    differences = compare(piece.rows, stored(self._reader, symbol, piece.after, piece.until))
                    self.changed += len(differences.differing)
                    self.added += len(differences.missing)
                    self.rows += len(piece.rows.times)
                    yield to_arrow(table, symbol, piece.rows)
            for after, end in hours(until, self._last):
                kept = self._reader.select(
                    ", ".join(schema.names), f"symbol = {text(symbol)} AND {between(after, end)}"
                )
                self.rows += kept.num_rows
                yield from kept.cast(schema).to_batches()
