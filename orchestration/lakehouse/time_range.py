"""The last stretch of a Delta table: which rows are of it, so that what is read stays bounded however old the table
is.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse.tables import EVENT_TIME, Lakehouse


class TimeRange(NamedTuple):
    """The rows of one version of a table that are younger than `begin`, and up to `end`, its newest row's time."""

    version: int
    begin: datetime.datetime
    end: datetime.datetime
    condition: str
    """For a query's WHERE: by it files are left out unread, as each says from when to when its rows are."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.begin).total_seconds()


def time_range_of(
    lakehouse: Lakehouse,
    table: str,
    seconds: float,
    *,
    version: int | None = None,
    not_before: datetime.datetime | None = None,
) -> TimeRange | None:
    """The last `seconds` before a table's newest row, and not before a moment if one is given.

    None when there is no such table, or no row in it.
    """
    if version is None:
        newest = lakehouse.version(table)
        if newest is None:
            return None
        version = newest.version
    try:
        end = lakehouse.content(table, version).last_event_time
    except TableNotFoundError:
        return None
    if end is None:
        return None
    end = end.astimezone(datetime.UTC)
    begin = max(
        end - datetime.timedelta(seconds=seconds), not_before or datetime.datetime.min.replace(tzinfo=end.tzinfo)
    )
    column = EVENT_TIME.get(table, "timestamp")
    condition = f"date >= DATE '{begin:%Y-%m-%d}' AND {column} > TIMESTAMP '{begin:%Y-%m-%dT%H:%M:%S.%fZ}'"
    return TimeRange(version, begin, end, condition)
