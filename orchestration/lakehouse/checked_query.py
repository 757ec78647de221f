"""SQL on Delta tables whose files are compared with their checksums before their rows count."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from tickhouse.table_checksums import data_files, require_files

_FILE = re.compile(r"[^/\[\], ]+\.parquet")
_PLAIN = re.compile(r"[\w.=-]+\.parquet")
"""Names that stand in a plan as they are."""


class CheckedQueries:
    """Queries on versions of tables, each under a name."""

    def __init__(self, **tables: DeltaTable) -> None:
        self._builder = QueryBuilder()
        self._tables: list[DeltaTable] = []
        self._compared: set[str] = set()
        """By these queries: a file is compared once, however many queries read it."""
        for name, opened in tables.items():
            self.register(name, opened)

    def register(self, name: str, opened: DeltaTable) -> None:
        """Let queries read a table."""
        self._builder.register(name, opened)
        self._tables.append(opened)

    def plan(self, statement: str) -> None:
        """Raises what is wrong with a statement, and runs none of it."""
        self._builder.execute(statement)

    def execute(self, statement: str) -> Any:
        """The engine's reader of the rows of a SELECT. Raises TableDamaged before any row, and plain exceptions."""
        self._require(statement)
        return self._builder.execute(statement)

    def _require(self, statement: str) -> None:
        said = pa.RecordBatchReader.from_stream(self._builder.execute(f"EXPLAIN VERBOSE {statement}")).read_all()
        plan = "\n".join(said["plan"].to_pylist())
        read = set(_FILE.findall(plan))
        for opened in self._tables:
            paths = [path for path in data_files(opened) if f"{opened.table_uri}/{path}" not in self._compared]
            # A plan that reads files and names none of any table is one that is not understood: all are compared.
            if read or "DataSource" not in plan:
                paths = [path for path in paths if _name(path) in read or not _PLAIN.fullmatch(_name(path))]
            require_files(opened, paths)
            self._compared.update(f"{opened.table_uri}/{path}" for path in paths)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
