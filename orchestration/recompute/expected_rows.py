"""What must be in the result tables: from stored ticks, by either rule, as far as that is certain while streams run.

The tables are written by streams that know nothing of each other, and lag. What is complete when M is the largest
timestamp of a symbol in `prices`, and R the largest one in a result table:

- `prices` holds the messages up to some offset. A tick on time that is still to come is not below M - lateness: ticks
  on time are complete below that.
- A symbol's statistics are published, and copied, in the order of time: `moving_stats` is complete up to R.
- z-scores are published as tick and statistics meet. The statistics come in the order of time; the ticks do not, but
  one on time that the stream had not read when it published the z-score at R is not below R - lateness.
- A wait is published once it is certain, at the latest when the watermark is 20 s past its tick. What was published at
  R was certain at a watermark past R, and of one micro-batch the rows are in the order of time: `higher` and `lower`
  are complete up to R - 20 s. They need prices of 20 s more as well.

This holds for symbols whose messages are all on one partition, as messages with their symbol as key are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from orchestration.lakehouse.backfill_log import Reach
from orchestration.lakehouse.snapshot import TableSnapshot, between, text
from orchestration.recompute.price_history import PriceHistory, StoredTicks
from orchestration.recompute.result_rows import (
    FIELDS,
    LIST_COLUMNS,
    Rows,
    no_rows,
    rows_of_answers,
    rows_of_scored,
    stored_rows,
    value_column,
)
from spark_jobs.compute import recompute
from spark_jobs.compute.first_passage import Answers
from tickhouse.contract.names import PASSAGE_HORIZON_MS

RESULT_TABLES = tuple(FIELDS)


class Piece(NamedTuple):
    """All rows that must be there with a timestamp in (after, until], in milliseconds."""

    after: int
    until: int
    rows: Rows


class SeveralPartitions(ValueError):
    """A symbol's ticks are on several partitions, so that the order in which a stream took them is not known."""


def complete_until(table: str, newest_price: int, newest_result: int, lateness_ms: int) -> int:
    """Up to which timestamp, itself included, `prices` and a result table are both complete; all in milliseconds.

    `newest_price` and `newest_result` are the symbol's largest timestamps in the two tables.
    """
    if table == "moving_stats":
        return min(newest_price - lateness_ms - 1, newest_result)
    if table == "zscores":
        return min(newest_price, newest_result) - lateness_ms - 1
    return min(newest_price - lateness_ms, newest_result) - PASSAGE_HORIZON_MS


def late_included(
    prices: PriceHistory, table: str, symbol: str, after: int, until: int, reach: Reach | None = None
) -> StoredTicks:
    """The stored ticks on which the rows of (after, until] depend, late ones included; only those within `reach`."""
    ticks = prices.ticks(symbol, *_range(table, after, until))
    return ticks if reach is None else ticks.within(reach)


def as_published(
    prices: PriceHistory, table: str, symbol: str, after: int, until: int, lateness_ms: int
) -> recompute.Ticks:
    """The ticks that the streams took, as far as the rows of (after, until] depend on them.

    Raises SeveralPartitions.
    """
    first, last = _range(table, after, until)
    # What is later than `limit` makes late whatever is up to `last` and comes after it.
    limit = last + lateness_ms
    ticks = prices.before_first_beyond(prices.ticks(symbol, first, limit), symbol, limit)
    if len(np.unique(ticks.partitions)) > 1:
        raise SeveralPartitions(f"the ticks of {symbol} are on several partitions: their order is not known")
    return recompute.on_time(ticks.timestamps, ticks.prices, lateness_ms)


def _range(table: str, after: int, until: int) -> tuple[int, int]:
    if table in LIST_COLUMNS:
        return after - recompute.WARM_UP_MS, until
    return after, until + PASSAGE_HORIZON_MS


def pieces(table: str, ticks: recompute.Ticks, after: int, until: int) -> Iterator[Piece]:
    """The rows of (after, until] of one symbol, in pieces without gaps. `until`: at most `complete_until`."""
    reached = after
    for rows in _rows(table, ticks, after, until):
        last = int(rows.times[-1]) // 1_000
        yield Piece(reached, last, rows)
        reached = last
    if reached < until:
        yield Piece(reached, until, no_rows(table))


def _rows(table: str, ticks: recompute.Ticks, after: int, until: int) -> Iterator[Rows]:
    if table in LIST_COLUMNS:
        for scored in recompute.scored(ticks, after, until):
            yield rows_of_scored(table, scored)
        return
    found = recompute.waits(ticks, after, until, until + PASSAGE_HORIZON_MS)
    answers = found.higher if table == "higher" else found.lower
    for start in range(0, len(answers.timestamps), recompute.TICKS_AT_ONCE):
        part = slice(start, start + recompute.TICKS_AT_ONCE)
        yield rows_of_answers(Answers(answers.timestamps[part], answers.waits[part]))


def stored(reader: TableSnapshot, symbol: str, after: int, until: int) -> Rows:
    """The rows of one symbol in a result table with a timestamp in (after, until]."""
    columns = f"timestamp, {value_column(reader.name)}"
    return stored_rows(reader.name, reader.select(columns, f"symbol = {text(symbol)} AND {between(after, until)}"))
