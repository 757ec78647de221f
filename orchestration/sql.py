"""SQL on the Delta tables, without a JVM.

Belongs here: running a query over all tables that exist, and nothing but a query: the engine would also write files,
read others than the tables', and change its settings. Does not belong here: showing the result (`cli`).
"""

from __future__ import annotations

import datetime
import re
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import TableNotFoundError

from orchestration import backfill_table, gap_table
from spark_jobs.jobs import TABLES

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w*)", re.DOTALL)
_QUERIES = ("SELECT", "WITH", "VALUES")


class QueryFailed(ValueError):
    """The query cannot be answered; the text says why."""


def query(lakehouse: str, sql: str) -> pa.Table:
    """The rows that a SELECT over the tables under `lakehouse` (a path or URI) gives. Raises QueryFailed.

    Every other statement is refused before anything of it is done.
    """
    builder = QueryBuilder()
    found = []
    for name in (*TABLES, gap_table.NAME, backfill_table.NAME):
        try:
            builder.register(name, DeltaTable(f"{lakehouse.rstrip('/')}/{name}"))
        except TableNotFoundError:
            continue
        found.append(name)
    if not found:
        raise QueryFailed(f"there are no tables under {lakehouse} yet: `tickhouse up` makes them within a minute")
    statement = sql.strip().rstrip(";")
    word = _FIRST_WORD.match(statement)
    first = word[1].upper() if word else ""
    if first not in _QUERIES:
        raise QueryFailed(f"only queries are answered: {', '.join(_QUERIES)}, not {first or 'this'}")
    try:
        # The engine's own parser tells what is a query: only that can stand where a table does. Planning it runs none
        # of it, and takes no part of it for another statement, for which there is no place here.
        builder.execute(f"SELECT * FROM ({statement}\n) LIMIT 0")  # noqa: S608
        return pa.table(builder.execute(statement).read_all())
    except Exception as error:
        # The query engine raises plain exceptions; their text is about the query, and that is the user's.
        raise QueryFailed(f"{error} (tables: {', '.join(found)})") from error


def as_text(value: Any) -> str:
    """A value that JSON has no form for: times as ISO 8601, bytes as text, all else as Python prints it."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
