"""Whether the result tables hold, to the last bit, what follows from the stored prices.

Rows that a backfill has written must follow from all the ticks that it had, late ones included; all other rows from the
ticks on time. It is read only what is needed: of each symbol the stretch and an hour before it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse import backfill_log
from orchestration.lakehouse.backfill_log import Backfilled
from orchestration.lakehouse.snapshot import TableSnapshot, day_of, first_of, last_of, milliseconds_of, moment
from orchestration.recompute.expected_rows import (
    RESULT_TABLES,
    SeveralPartitions,
    as_published,
    complete_until,
    late_included,
    pieces,
    stored,
)
from orchestration.recompute.price_history import PriceHistory
from orchestration.recompute.result_rows import Rows, compare, difference_text, time_text
from spark_jobs.compute import recompute

STRETCH_MINUTES = 15
SHOWN = 5
"""So many of the rows that are not as they must be are named."""
KINDS = ("missing", "unexpected", "duplicate", "differing")


class NothingToCompare(RuntimeError):
    """There are no prices; the text says what to do."""


@dataclass
class Findings:
    """What was found in one result table."""

    table: str
    compared: int = 0
    """Rows that must be there."""
    backfilled: int = 0
    """Those of them that a backfill has written."""
    until: dict[str, datetime.datetime] = field(default_factory=dict)
    """Symbol to the timestamp up to which it was compared."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """How many rows are `missing`, `unexpected`, `duplicate`, `differing`."""
    examples: list[str] = field(default_factory=list)
    """The first of them."""
    notes: list[str] = field(default_factory=list)
    """What was not compared, and why."""

    @property
    def passed(self) -> bool:
        """Whether all that was compared is as it must be."""
        return not any(self.counts.values())

    def text(self) -> str:
        """One line for people."""
        compared = f"{self.compared:,} rows of {len(self.until)} symbols compared"
        if self.passed:
            found = f"{compared}, all equal to the last bit" if self.compared else "nothing to compare yet"
        else:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count)
            found = f"{compared}: {counts}. {'; '.join(self.examples)}"
        return "; ".join((found, *self.notes))


def reconcile(
    lakehouse: str,
    lateness_ms: int,
    tables: Sequence[str] = RESULT_TABLES,
    *,
    minutes: float = STRETCH_MINUTES,
    until: datetime.datetime | None = None,
) -> list[Findings]:
    """Compare the last `minutes` that are complete, of each symbol, or those up to `until`.

    Of the newest prices, symbols count that have a tick on the newest UTC day or the day before. Raises
    NothingToCompare, and DeltaError or OSError when a table cannot be read.
    """
    # The tables that lag are opened first: the prices then hold what belongs to their rows, or will soon.
    opened: dict[str, TableSnapshot | None] = {}
    for table in tables:
        try:
            opened[table] = TableSnapshot(lakehouse, table)
        except TableNotFoundError:
            opened[table] = None
    try:
        prices = PriceHistory(lakehouse)
    except TableNotFoundError as error:
        raise NothingToCompare(
            f"there is no table of prices under {lakehouse}: start the prices stream first"
        ) from error
    stretch = round(minutes * 60_000)
    end = None if until is None else milliseconds_of(until)
    symbols = _symbols(prices, end, stretch)
    newest = prices.table.largest(symbols)
    found = []
    for table, reader in opened.items():
        findings = Findings(table)
        found.append(findings)
        if reader is None:
            findings.notes.append("there is no such table yet")
            continue
        backfilled = backfill_log.valid(lakehouse, reader)
        newest_results = reader.largest(symbols)
        for symbol in sorted(symbols):
            if symbol not in newest_results:
                findings.notes.append(f"no row of {symbol} yet")
                continue
            complete = complete_until(table, newest[symbol], newest_results[symbol], lateness_ms)
            last = complete if end is None else min(complete, end)
            after = (last if end is None else end) - stretch
            if after >= last:
                findings.notes.append(f"{symbol} is not complete in that time yet")
                continue
            try:
                _compare(findings, prices, reader, symbol, after, last, lateness_ms, backfilled)
            except SeveralPartitions as error:
                findings.notes.append(str(error))
    return found


def _symbols(prices: PriceHistory, end: int | None, stretch: int) -> set[str]:
    days = prices.table.dates()
    if not days:
        return set()
    first = days[0] - datetime.timedelta(days=1) if end is None else day_of(end - stretch)
    last = days[0] if end is None else day_of(end)
    return {symbol for day in days if first <= day <= last for symbol in prices.table.symbols(day)}


def _compare(
    findings: Findings,
    prices: PriceHistory,
    reader: TableSnapshot,
    symbol: str,
    after: int,
    until: int,
    lateness_ms: int,
    backfilled: dict[tuple[datetime.date, str], Backfilled],
) -> None:
    for begin, end, record in _segments(symbol, after, until, backfilled):
        if record is None:
            ticks = as_published(prices, reader.name, symbol, begin, end, lateness_ms)
        else:
            every = late_included(prices, reader.name, symbol, begin, end, record.reach)
            ticks = recompute.distinct(every.timestamps, every.prices)
        for piece in pieces(reader.name, ticks, begin, end):
            _count(findings, symbol, piece.rows, stored(reader, symbol, piece.after, piece.until))
            findings.compared += len(piece.rows.times)
            findings.backfilled += len(piece.rows.times) if record is not None else 0
    findings.until[symbol] = moment(until)


def _segments(
    symbol: str, after: int, until: int, backfilled: dict[tuple[datetime.date, str], Backfilled]
) -> Iterator[tuple[int, int, Backfilled | None]]:
    """(after, until] cut where the rule changes: with what a backfill has recorded, or None for a stream's own rows."""
    begin, day = after, day_of(after + 1)
    while begin < until:
        end = min(until, last_of(day))
        record = backfilled.get((day, symbol))
        if record is not None and begin < record.until:
            yield begin, min(end, record.until), record
            begin = min(end, record.until)
        if begin < end:
            yield begin, end, None
        day += datetime.timedelta(days=1)
        begin = first_of(day) - 1


def _count(findings: Findings, symbol: str, expected: Rows, found: Rows) -> None:
    differences = compare(expected, found)
    for kind, times in zip(KINDS, differences, strict=True):
        findings.counts[kind] += len(times)
        for time in times[: max(0, SHOWN - len(findings.examples))].tolist():
            named = f"{kind}: {symbol} at {time_text(time)}"
            if kind == "differing":
                named += f", {difference_text(findings.table, time, expected, found)}"
            findings.examples.append(named)
