"""SQL on the Delta tables, without a JVM."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse import backfill_log, gap_log
from orchestration.lakehouse.checked_query import CheckedQueries
from orchestration.lakehouse.sql_errors import explain, single
from orchestration.lakehouse.tables import Lakehouse, plain_schema
from tickhouse.contract.tables import arrow_schema
from tickhouse.contract.topology import TABLES
from tickhouse.table_checksums import TableDamaged, open_table

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w*)", re.DOTALL)
_QUERIES = ("SELECT", "WITH", "VALUES")
_LISTINGS = ("DESCRIBE", "DESC", "SHOW")
_SCHEMAS = {name: arrow_schema(name) for name in TABLES} | {
    gap_log.NAME: gap_log.SCHEMA,
    backfill_log.NAME: backfill_log.SCHEMA,
}
NAMES = tuple(_SCHEMAS)
"""The tables that can be asked. One that was not made yet has no rows."""


class QueryFailed(ValueError):
    """The query cannot be answered; the text says why."""


EXAMPLES = {
    "What is the newest z-score of 30 seconds of each symbol?": (
        "SELECT symbol, max(timestamp) AS newest, last_value(z_scores[1]['zscore_price'] ORDER BY timestamp) AS z_30s "
        "FROM zscores GROUP BY symbol ORDER BY symbol"
    ),
    "How many ticks are there of each symbol, and up to when?": (
        "SELECT symbol, count(*) AS ticks, max(timestamp) AS newest FROM prices GROUP BY symbol ORDER BY symbol"
    ),
    "When was the price furthest from its mean of 30 seconds?": (
        "SELECT symbol, timestamp, z_scores[1]['zscore_price'] AS z_30s FROM zscores "
        "ORDER BY abs(z_scores[1]['zscore_price']) DESC NULLS LAST LIMIT 5"
    ),
    "How long does it take to the next higher price, by the minute?": (
        "SELECT symbol, date_trunc('minute', timestamp) AS minute, avg(higher_window) AS seconds FROM higher "
        "GROUP BY 1, 2 ORDER BY 2 DESC, 1 LIMIT 10"
    ),
}
"""Questions to begin with, and how they are asked."""


class Answer(NamedTuple):
    """The rows that a query gives, computed while they are taken, once: a long answer is never whole in memory."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    """Raises QueryFailed where a value cannot be computed."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row by column name."""
        return (row for batch in self.batches for row in batch.to_pylist())


class TableColumns(NamedTuple):
    """A table that can be asked."""

    name: str
    rows: int
    columns: list[tuple[str, str, str | None]]
    """Name, type and description of each."""


def query(lakehouse: str, sql: str) -> Answer:
    """The rows that a SELECT over the tables under `lakehouse` (a path or URI) gives. Raises QueryFailed.

    Every other statement is refused before anything of it is done.
    """
    statement = _only_query(sql)
    queries = CheckedQueries()
    found = []
    for name in NAMES:
        try:
            queries.register(name, open_table(f"{lakehouse.rstrip('/')}/{name}"))
        except TableNotFoundError:
            if name in statement:
                queries.register(name, _empty_table(name))
        except TableDamaged as error:
            # Who does not ask it has an answer all the same.
            if name in statement:
                raise QueryFailed(f"{error}") from error
        else:
            found.append(name)
    if not found:
        raise _no_tables(lakehouse)

    def failure(error: Exception) -> QueryFailed:
        return QueryFailed(explain(f"{error}", statement, found, NAMES))

    try:
        # The engine's own parser tells what is a query: only that can stand in a WITH. Planning it runs none of it, and
        # takes no part of it for another statement, for which there is no place here.
        queries.plan(f"WITH asked AS (\n{statement}\n) SELECT * FROM asked LIMIT 0")  # noqa: S608
        reader = pa.RecordBatchReader.from_stream(queries.execute(statement))
    except TableDamaged as error:
        raise QueryFailed(f"{error}") from error
    except Exception as error:
        # The query engine raises plain exceptions; their text is about the query, and that is the user's.
        raise failure(error) from error
    schema = plain_schema(reader.schema)
    return Answer(schema, _batches(reader, schema, failure))


def _only_query(sql: str) -> str:
    statement = single(sql)
    if statement is None:
        raise QueryFailed("one query at a time is answered: ask them one after the other, without the semicolon")
    word = _FIRST_WORD.match(statement)
    first = word[1].upper() if word else ""
    if first not in _QUERIES:
        listing = "; which tables and columns there are, `tickhouse sql` without a query says" * (first in _LISTINGS)
        raise QueryFailed(f"only queries are answered: {', '.join(_QUERIES)}, not {first or 'this'}{listing}")
    return statement


def _empty_table(name: str) -> DeltaTable:
    """A table without rows. Its log is read once, when it is made; there are no files to be read later."""
    with tempfile.TemporaryDirectory(prefix="tickhouse-") as folder:
        return DeltaTable.create(folder, _SCHEMAS[name])


def _batches(
    reader: pa.RecordBatchReader, schema: pa.Schema, failure: Callable[[Exception], QueryFailed]
) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except Exception as error:
            raise failure(error) from error
        yield batch.cast(schema)


def tables(lakehouse: str) -> list[TableColumns]:
    """The tables that there are under `lakehouse`. Raises QueryFailed when there is none."""
    lake = Lakehouse(lakehouse)
    found = []
    for name in NAMES:
        version = lake.version(name)
        if version is not None:
            found.append(TableColumns(name, lake.content(name, version.version).rows, lake.columns(name)))
    if not found:
        raise _no_tables(lakehouse)
    return found


def _no_tables(lakehouse: str) -> QueryFailed:
    return QueryFailed(f"there are no tables under {lakehouse} yet: `tickhouse up` makes them within a minute")
