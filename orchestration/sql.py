"""SQL on the Delta tables, without a JVM.

Belongs here: running a query over all tables that exist. Does not belong here: showing the result (`cli`).
"""

from __future__ import annotations

import datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from orchestration import gap_table
from spark_jobs.jobs import TABLES


class QueryFailed(ValueError):
    """The query cannot be answered; the text says why."""


def query(lakehouse: str, sql: str) -> pa.Table:
    """The rows that a SELECT over the tables under `lakehouse` (a path or URI) gives. Raises QueryFailed."""
    builder = QueryBuilder()
    found = []
    for name in (*TABLES, gap_table.NAME):
        try:
            builder.register(name, DeltaTable(f"{lakehouse.rstrip('/')}/{name}"))
        except TableNotFoundError:
            continue
        found.append(name)
    if not found:
        raise QueryFailed(f"there are no tables under {lakehouse} yet: `tickhouse up` makes them within a minute")
    try:
        return pa.table(builder.execute(sql).read_all())
    except Exception as error:
        # The query engine raises plain exceptions; their text is about the query, and that is the user's.
        raise QueryFailed(f"{error} (tables: {', '.join(found)})") from error


def as_text(value: Any) -> str:
    """A value that JSON has no form for: times as ISO 8601, bytes as text, all else as Python prints it."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
