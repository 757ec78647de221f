"""The newest rows of one Delta table, by symbol, as arrays."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from orchestration.lakehouse.checked_query import CheckedQueries
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import WINDOWS
from tickhouse.table_checksums import open_table, require_log

_REOPEN_SECONDS = 60.0
"""A table that was made anew begins with version 0 again: looking for later versions would never find it."""
_MILLISECONDS = """CAST(arrow_cast(timestamp, 'Timestamp(Millisecond, Some("UTC"))') AS BIGINT) AS milliseconds"""
_STORED_TIME = 'Timestamp(Microsecond, Some("UTC"))'
"""Compared in the form in which Delta has times, so that files are passed over by their statistics."""
_ALWAYS, _NEVER = -(2**62), 2**62

TABLES: dict[str, tuple[str, ...]] = {
    "prices": ("CAST(price AS DOUBLE)",),
    "moving_stats": tuple(
        f"stats[{position}]['{field}']"
        for field in ("avg_price", "std_price")
        for position in range(1, len(WINDOWS) + 1)
    ),
    "higher": ("higher_window",),
    "lower": ("lower_window",),
}
"""Which numbers of a row are read, as SQL: of `moving_stats` the averages of all windows, then the deviations."""
IN_ORDER = "timestamp"
ORDERS = {"prices": 'timestamp, "offset"'}
"""In which order rows are read, where not in that of time alone: of a tick that came twice, the first one counts."""


class Rows(NamedTuple):
    """n rows of one symbol in time order: `times` (n,) in milliseconds, `values` (numbers, n), NaN where null."""

    times: Integers
    values: Floats

    def since(self, start: int) -> Rows:
        """Those at `start` (milliseconds) or later."""
        first = int(np.searchsorted(self.times, start))
        return Rows(self.times[first:], self.values[:, first:])

    def before(self, end: int) -> Rows:
        """Those before `end` (milliseconds)."""
        last = int(np.searchsorted(self.times, end))
        return Rows(self.times[:last], self.values[:, :last])


def no_rows(numbers: int) -> Rows:
    """Nothing."""
    return Rows(np.zeros(0, dtype=np.int64), np.zeros((numbers, 0)))


@dataclass
class _Kept:
    rows: Rows
    since: int
    """From when on the rows are complete."""
    valid_below: int
    """From when on the table may have changed since they were read."""


class RecentRows:
    """The newest rows of the table at `uri`. Not safe to use from several threads at once."""

    def __init__(self, uri: str, expressions: Sequence[str], order: str = IN_ORDER) -> None:
        """`expressions`: SQL, one for each number of a row; `order`: SQL, by time first."""
        self._uri = uri
        self._expressions = expressions
        self._order = order
        self._table: DeltaTable | None = None
        self._opened_at = 0.0
        self._identity: tuple[str, int] | None = None
        self._files: dict[str, tuple[int, int]] = {}
        self._kept: dict[str, _Kept] = {}

    @property
    def end(self) -> int | None:
        """The newest timestamp in the table, in milliseconds, as of the last `refresh`; None without rows."""
        return max((newest for _, newest in self._files.values() if newest < _NEVER), default=None)

    def refresh(self) -> tuple[str, int] | None:
        """Look for a new version. Returns the table's id and version, None when there is no table.

        Raises DeltaError and OSError when it cannot be read.
        """
        try:
            if self._table is None or time.monotonic() - self._opened_at > _REOPEN_SECONDS:
                self._table = open_table(self._uri)
                self._opened_at = time.monotonic()
            else:
                require_log(self._uri)
                self._table.update_incremental()
        except TableNotFoundError:
            self._table, self._identity, self._files = None, None, {}
            self._kept.clear()
            return None
        identity = (str(self._table.metadata().id), self._table.version())
        if identity != self._identity:
            self._compare(self._table, same_table=self._identity is not None and identity[0] == self._identity[0])
            self._identity = identity
        return identity

    def read(self, symbol: str, since: int) -> Rows:
        """The rows of a symbol (of `contract`'s form) at `since` (milliseconds) or later, of the version last found."""
        if self._table is None:
            return no_rows(len(self._expressions))
        kept = self._kept.get(symbol)
        if kept is None or since < kept.since:
            rows = self._query(self._table, symbol, since)
        elif kept.valid_below == _NEVER:
            rows = kept.rows.since(since)
        else:
            start = max(since, kept.valid_below)
            unchanged, new = kept.rows.since(since).before(start), self._query(self._table, symbol, start)
            rows = Rows(
                np.concatenate((unchanged.times, new.times)), np.concatenate((unchanged.values, new.values), axis=1)
            )
        self._kept[symbol] = _Kept(rows, since, _NEVER)
        return rows

    def forget_all_but(self, symbols: Collection[str]) -> None:
        """Let go of the rows of symbols that nobody looks at."""
        self._kept = {symbol: kept for symbol, kept in self._kept.items() if symbol in symbols}

    def _compare(self, table: DeltaTable, *, same_table: bool) -> None:
        files = _files(table)
        differing = [
            span for path, span in {**self._files, **files}.items() if (path in files) != (path in self._files)
        ]
        changed = min((oldest for oldest, _ in differing), default=_NEVER) if same_table else _ALWAYS
        for kept in self._kept.values():
            kept.valid_below = min(kept.valid_below, changed)
        self._files = files

    def _query(self, table: DeltaTable, symbol: str, since: int) -> Rows:
        start = np.datetime64(max(since, 0), "ms")
        numbers = [
            f"COALESCE({sql}, CAST('NaN' AS DOUBLE)) AS v{number}" for number, sql in enumerate(self._expressions)
        ]
        selected = ", ".join([_MILLISECONDS, *numbers])
        # The partition's column as well: whole days are then passed over without a look at their statistics.
        statement = (
            f"SELECT {selected} FROM found WHERE date >= DATE '{start.astype('datetime64[D]')}' "  # noqa: S608
            f"AND timestamp >= arrow_cast('{start}Z', '{_STORED_TIME}') AND symbol = '{symbol}' ORDER BY {self._order}"
        )
        # To arrays without pyarrow, which would import pandas for it.
        found = CheckedQueries(found=table).execute(statement).read_all()
        values = [found[f"v{number}"].to_numpy() for number in range(len(self._expressions))]
        return Rows(found["milliseconds"].to_numpy(), np.stack(values))


def _files(table: DeltaTable) -> dict[str, tuple[int, int]]:
    """Oldest and newest timestamp of each file, by its path; where a file does not tell, it may hold any."""
    # Not by `pa.table`, which imports pandas to see whether it is given some of that.
    actions = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    paths = actions["path"].to_pylist()
    oldest = _milliseconds(actions, "min.timestamp", _ALWAYS)
    newest = _milliseconds(actions, "max.timestamp", _NEVER)
    return dict(zip(paths, zip(oldest, newest, strict=True), strict=True))


def _milliseconds(actions: pa.Table, column: str, unknown: int) -> list[int]:
    if column not in actions.column_names:
        return [unknown] * actions.num_rows
    told: list[Any] = actions[column].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist()
    return [unknown if value is None else value for value in told]
