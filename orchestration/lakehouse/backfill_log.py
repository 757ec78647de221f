"""The Delta table of backfills: which rows of the result tables were recomputed, and from which messages.

What is recorded is valid if the day was replaced, too. It is recorded first, and the commit that replaces the day names
it as a transaction of its own: so a table's log tells which backfill of a day its rows are of, whatever was killed.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
from deltalake import Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse.snapshot import TableSnapshot, milliseconds_of, moment
from tickhouse.contract.topology import BACKFILLS_TABLE
from tickhouse.table_checksums import note, open_table, require_files


class Reach(NamedTuple):
    """Which messages of a symbol are meant: up to an offset of each partition, in one generation of offsets."""

    generation: int
    offsets: dict[int, int]
    """Partition to the last offset."""


NAME = BACKFILLS_TABLE
SCHEMA = pa.schema(
    [
        ("day", pa.date32()),
        ("table", pa.string()),
        ("symbol", pa.string()),
        ("until", pa.timestamp("us", tz="UTC")),
        ("generation", pa.int32()),
        ("offsets", pa.list_(pa.struct([("partition", pa.int32()), ("offset", pa.int64())]))),
        ("backfilled_at", pa.timestamp("us", tz="UTC")),
    ]
)


class Backfilled(NamedTuple):
    """The rows of one symbol and UTC day in a result table that were recomputed, late ticks included."""

    day: datetime.date
    table: str
    symbol: str
    until: int
    """The last timestamp, in milliseconds: rows after it are the stream's own."""
    reach: Reach
    """The messages that there were."""


def transaction(day: datetime.date, at: datetime.datetime) -> Transaction:
    """What the commit that replaces a day says, so that what was recorded `at` that time is valid."""
    return Transaction(_application(day), _number(at))


def number(table: TableSnapshot, day: datetime.date) -> int | None:
    """Tells the backfills of a day apart: that which a version of a result table is of, None for none."""
    return table.opened.transaction_version(_application(day))


def append(lakehouse: str, backfilled: Sequence[Backfilled], at: datetime.datetime) -> None:
    """Record what is about to be written, in one commit. Raises DeltaError, OSError."""
    rows = [
        {
            "day": each.day,
            "table": each.table,
            "symbol": each.symbol,
            "until": moment(each.until),
            "generation": each.reach.generation,
            "offsets": [{"partition": part, "offset": last} for part, last in sorted(each.reach.offsets.items())],
            "backfilled_at": at,
        }
        for each in backfilled
    ]
    write_deltalake(_uri(lakehouse), pa.Table.from_pylist(rows, SCHEMA), mode="append")
    note(_uri(lakehouse))


def valid(lakehouse: str, table: TableSnapshot) -> dict[tuple[datetime.date, str], Backfilled]:
    """What the rows of a version of a result table are of, by day and symbol. Raises DeltaError, OSError."""
    try:
        opened = open_table(_uri(lakehouse))
    except TableNotFoundError:
        return {}
    require_files(opened)
    found: dict[tuple[datetime.date, str], Backfilled] = {}
    numbers: dict[datetime.date, int | None] = {}
    for row in opened.to_pyarrow_table(filters=[("table", "=", table.name)]).to_pylist():
        day = row["day"]
        if day not in numbers:
            numbers[day] = number(table, day)
        if _number(row["backfilled_at"]) == numbers[day]:
            reach = Reach(row["generation"], {entry["partition"]: entry["offset"] for entry in row["offsets"]})
            until = milliseconds_of(row["until"])
            found[day, row["symbol"]] = Backfilled(day, table.name, row["symbol"], until, reach)
    return found


def _application(day: datetime.date) -> str:
    return f"tickhouse-backfill-{day}"


def _number(at: datetime.datetime) -> int:
    return (at - moment(0)) // datetime.timedelta(microseconds=1)


def _uri(lakehouse: str) -> str:
    return f"{lakehouse.rstrip('/')}/{NAME}"
