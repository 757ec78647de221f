"""One version of a Delta table, and what is asked of it in SQL, without a JVM."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa

from orchestration.lakehouse.checked_query import CheckedQueries
from tickhouse.contract.arrays import Integers
from tickhouse.table_checksums import open_table

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DAY_MS = 86_400_000


def moment(milliseconds: int) -> datetime.datetime:
    """The time, in UTC, of milliseconds since the epoch."""
    return _EPOCH + datetime.timedelta(milliseconds=milliseconds)


def milliseconds_of(time: datetime.datetime) -> int:
    """A time as whole milliseconds since the epoch."""
    return (time - _EPOCH) // datetime.timedelta(milliseconds=1)


def day_of(milliseconds: int) -> datetime.date:
    """The UTC day of a time in milliseconds since the epoch."""
    return moment(milliseconds).date()


def first_of(day: datetime.date) -> int:
    """The first millisecond of a UTC day, since the epoch."""
    return (day - _EPOCH.date()).days * _DAY_MS


def last_of(day: datetime.date) -> int:
    """The last millisecond of a UTC day, since the epoch."""
    return first_of(day) + _DAY_MS - 1


def milliseconds(column: pa.ChunkedArray) -> Integers:
    """Times as milliseconds since the epoch."""
    microseconds: Integers = column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return microseconds // 1_000


def text(value: str) -> str:
    """A text as it stands in SQL."""
    return "'" + value.replace("'", "''") + "'"


def between(after: int, until: int) -> str:
    """The condition that a row is of (after, until], in milliseconds; the dates are what files are picked by."""
    return (
        f"date BETWEEN '{day_of(after)}' AND '{day_of(until)}'"
        f" AND timestamp > {_instant(after)} AND timestamp <= {_instant(until)}"
    )


def later_than(after: int) -> str:
    """The condition that a row is of a time later than `after`, in milliseconds."""
    return f"date >= '{day_of(after)}' AND timestamp > {_instant(after)}"


def _instant(milliseconds: int) -> str:
    return f"TIMESTAMP '{moment(milliseconds).isoformat(timespec='milliseconds')}'"


class TableSnapshot:
    """A version (default: the newest) of the table `name` under `lakehouse`.

    Raises TableNotFoundError, TableDamaged.
    """

    def __init__(self, lakehouse: str, name: str, version: int | None = None) -> None:
        self.name = name
        self.opened = open_table(f"{lakehouse.rstrip('/')}/{name}", version)
        self._queries = CheckedQueries(**{name: self.opened})

    def select(self, columns: str, condition: str, rest: str = "") -> pa.Table:
        """The rows that meet a condition. All three are SQL. Raises TableDamaged."""
        statement = f"SELECT {columns} FROM {self.name} WHERE {condition} {rest}"  # noqa: S608
        return pa.table(self._queries.execute(statement).read_all())

    def dates(self) -> list[datetime.date]:
        """The UTC days of which there are rows, the newest first."""
        found = (partition["date"] for partition in self.opened.partitions())
        return sorted({datetime.date.fromisoformat(str(date)) for date in found if date is not None}, reverse=True)

    def symbols(self, day: datetime.date) -> set[str]:
        """The symbols of which there are rows on a UTC day."""
        found = self.select("DISTINCT symbol", f"date = '{day}' AND symbol IS NOT NULL")
        return set(found["symbol"].to_pylist())

    def largest(self, symbols: Collection[str]) -> dict[str, int]:
        """The largest timestamp of each of these symbols, in milliseconds, where there is one.

        Days are looked at from the newest back to where all have been found.
        """
        largest: dict[str, int] = {}
        for day in self.dates():
            if largest.keys() >= set(symbols):
                break
            found = self.select(
                "symbol, max(timestamp) AS newest", f"date = '{day}' AND symbol IS NOT NULL", "GROUP BY symbol"
            )
            newest = milliseconds(found["newest"]).tolist()
            for symbol, time in zip(found["symbol"].to_pylist(), newest, strict=True):
                if symbol in symbols:
                    largest.setdefault(symbol, time)
        return largest


def hours(after: int, until: int) -> Iterator[tuple[int, int]]:
    """(after, until] in pieces of at most an hour, cut where the hours end; all in milliseconds."""
    hour = 3_600_000
    for start in np.arange(after // hour * hour, until + 1, hour).tolist():
        begin, end = max(after, start - 1), min(until, start + hour - 1)
        if begin < end:
            yield begin, end
