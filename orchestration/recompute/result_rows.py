"""The rows of the result tables as arrays of bits, and where two sets of them differ: pure.

Bits, because equal means equal to the last bit: a null is a bit pattern of its own, that no arithmetic gives, and so is
what stands in for a row that does not have the form of its table.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.compute.first_passage import Answers
from spark_jobs.compute.recompute import Scored
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.decoding import window_lists
from tickhouse.contract.names import WINDOWS
from tickhouse.contract.tables import arrow_schema

NULL_BITS = 0x7FF8_0000_0000_0001
MALFORMED_BITS = 0x7FF8_0000_0000_0002
_MICROSECONDS = pa.timestamp("us", "UTC")
_DAY_US = 86_400_000_000

FIELDS: dict[str, dict[str, pa.DataType]] = {
    "moving_stats": {"avg_price": pa.float64(), "std_price": pa.float64(), "count": pa.int64()},
    "zscores": {"zscore_price": pa.float64()},
    "higher": {"higher_window": pa.float64()},
    "lower": {"lower_window": pa.float64()},
}
"""The values of each table; those of the first two are there once for each window."""
LIST_COLUMNS = {"moving_stats": "stats", "zscores": "z_scores"}
"""The column with a list of windows, where there is one."""


def value_column(table: str) -> str:
    """The one column of a table that holds what was computed."""
    return LIST_COLUMNS.get(table) or next(iter(FIELDS[table]))


def value_names(table: str) -> list[str]:
    """What the bits of a row of a table are, in their order."""
    if table in LIST_COLUMNS:
        return [f"{field} of {window}" for field in FIELDS[table] for window in WINDOWS]
    return list(FIELDS[table])


class Rows(NamedTuple):
    """n rows of one symbol."""

    times: Integers
    """Microseconds since the epoch, increasing; equal ones where a row is there more than once. Shape (n,)."""
    bits: Integers
    """Shape (values, n), in the order of `value_names`."""

    def take(self, positions: npt.NDArray[Any]) -> Rows:
        """Some of the rows: their positions, or a mask."""
        return Rows(self.times[positions], self.bits[:, positions])


def no_rows(table: str) -> Rows:
    """No row of a table."""
    return Rows(np.zeros(0, dtype=np.int64), np.zeros((len(value_names(table)), 0), dtype=np.int64))


def joined(parts: list[Rows], table: str) -> Rows:
    """Rows one after the other."""
    every = [no_rows(table), *parts]
    return Rows(np.concatenate([part.times for part in every]), np.concatenate([part.bits for part in every], axis=1))


def _bits(values: Floats) -> Integers:
    return np.where(np.isnan(values), NULL_BITS, np.ascontiguousarray(values).view(np.int64))


def rows_of_scored(table: str, scored: Scored) -> Rows:
    """Recomputed rows of `moving_stats` or `zscores`."""
    if table == "zscores":
        return Rows(scored.timestamps * 1_000, _bits(scored.z_scores))
    counts, averages, deviations = scored.statistics
    return Rows(scored.timestamps * 1_000, np.concatenate((_bits(averages), _bits(deviations), counts)))


def rows_of_answers(answers: Answers) -> Rows:
    """Recomputed rows of `higher` or `lower`."""
    seconds = answers.waits / 1_000
    return Rows(answers.timestamps * 1_000, _bits(seconds)[np.newaxis])


def stored_rows(table: str, stored: pa.Table) -> Rows:
    """Rows from the columns `timestamp` and `value_column` of a table, in the order of their time."""
    times = stored["timestamp"].cast(_MICROSECONDS).cast(pa.int64()).to_numpy()
    values = stored[value_column(table)]
    column = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    bits = _list_bits(table, column) if table in LIST_COLUMNS else _column_bits(column)[np.newaxis]
    order = np.argsort(times, kind="stable")
    return Rows(times[order], bits[:, order])


def _list_bits(table: str, lists: pa.Array) -> Integers:
    windows, fields = len(WINDOWS), FIELDS[table]
    bits = np.full((len(fields) * windows, len(lists)), MALFORMED_BITS, dtype=np.int64)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    whole = lengths == windows
    entries = pc.list_flatten(lists)
    of_whole = np.repeat(whole, lengths)

    def by_row(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        of_windows: npt.NDArray[Any] = values[of_whole].reshape(-1, windows)
        return of_windows

    labels = by_row(np.array(pc.struct_field(entries, "window").to_pylist(), dtype=object))
    listed = (labels == np.array(list(WINDOWS), dtype=object)).all(axis=1)
    matrix = np.concatenate([by_row(_column_bits(pc.struct_field(entries, field))).T for field in fields])
    bits[:, np.flatnonzero(whole)[listed]] = matrix[:, listed]
    return bits


def _column_bits(column: pa.Array) -> Integers:
    missing = pc.is_null(column).to_numpy(zero_copy_only=False)
    values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return np.where(missing, NULL_BITS, np.ascontiguousarray(values).view(np.int64))


def to_arrow(table: str, symbol: str, rows: Rows) -> pa.RecordBatch:
    """Rows as they are written to the table. None of them may be malformed."""
    count = len(rows.times)
    if table in LIST_COLUMNS:
        matrices = rows.bits.reshape(len(FIELDS[table]), len(WINDOWS), count)
        values: Any = window_lists(
            {
                name: _column(matrix.T.ravel(), kind)
                for matrix, (name, kind) in zip(matrices, FIELDS[table].items(), strict=True)
            },
            count,
        )
    else:
        (kind,) = FIELDS[table].values()
        values = _column(rows.bits[0], kind)
    dates = pa.array((rows.times // _DAY_US).astype(np.int32)).cast(pa.date32())
    times = pa.array(rows.times).cast(_MICROSECONDS)
    return pa.RecordBatch.from_arrays(
        [pa.array([symbol] * count, pa.string()), times, values, dates], schema=arrow_schema(table)
    )


def _column(bits: Integers, kind: pa.DataType) -> pa.Array:
    values = np.ascontiguousarray(bits)
    return pa.array(values if kind == pa.int64() else values.view(np.float64), kind, mask=bits == NULL_BITS)


class Differences(NamedTuple):
    """How the stored rows of a symbol differ from those that must be there: the times of the rows, microseconds."""

    missing: Integers
    unexpected: Integers
    duplicate: Integers
    differing: Integers

    @property
    def total(self) -> int:
        """How many rows are not as they must be."""
        return sum(len(times) for times in self)


def compare(expected: Rows, stored: Rows) -> Differences:
    """Compare rows; those of `expected` are distinct. A duplicate is every further row of one time."""
    again = np.zeros(len(stored.times), dtype=bool)
    again[1:] = stored.times[1:] == stored.times[:-1]
    first = stored.take(~again)
    _, ours, theirs = np.intersect1d(expected.times, first.times, assume_unique=True, return_indices=True)
    unequal = (expected.bits[:, ours] != first.bits[:, theirs]).any(axis=0)
    return Differences(
        np.setdiff1d(expected.times, first.times, assume_unique=True),
        np.setdiff1d(first.times, expected.times, assume_unique=True),
        stored.times[again],
        expected.times[ours[unequal]],
    )


def difference_text(table: str, time: int, expected: Rows, stored: Rows) -> str:
    """The first value in which the two rows of a time differ, in words."""
    ours = expected.bits[:, np.searchsorted(expected.times, time)]
    theirs = stored.bits[:, np.searchsorted(stored.times, time)]
    position = int(np.flatnonzero(ours != theirs)[0])
    name, kinds = value_names(table)[position], list(FIELDS[table].values())
    kind = kinds[position * len(kinds) // len(ours)]
    return f"{name} is {_value_text(theirs[position], kind)}, must be {_value_text(ours[position], kind)}"


def _value_text(bits: np.int64, kind: pa.DataType) -> str:
    if bits == NULL_BITS:
        return "null"
    if bits == MALFORMED_BITS:
        return "not a list of the windows"
    return str(int(bits)) if kind == pa.int64() else repr(float(bits.view(np.float64)))


def time_text(time: int) -> str:
    """Microseconds since the epoch as ISO 8601, in UTC."""
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=time)
    return moment.isoformat(timespec="microseconds" if time % 1_000 else "milliseconds").replace("+00:00", "Z")
