"""Results read back from their topics: the statistics for the z-scores, and all of them as rows of the Delta tables.

Belongs here: from messages, as `messages` has formed them, to arrays. Does not belong here: their form (`messages`),
what is done with them (`matching`, `archive`).

The messages go to Arrow's CSV reader. It takes a fifth of the time of its JSON reader, and messages of one topic differ
only in what stands between the same commas. They are our own output: anything odd in what is read of them is a fault
and raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from spark_jobs.tables import arrow_schema
from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import WINDOWS

_TO_THE_END = 2**31 - 1
"""Longer than any text; Arrow's slices of bytes need an end."""


class StatisticsBlock(NamedTuple):
    """n statistics messages; averages and deviations have shape (windows, n), NaN where null."""

    symbols: pa.Array
    times: pa.Array
    """In milliseconds, without a time zone."""
    averages: Floats
    deviations: Floats
    counts: list[pa.Array]
    """For each window as texts: only the table wants their numbers."""

    @property
    def timestamps(self) -> Integers:
        """Milliseconds since the epoch, shape (n,)."""
        milliseconds: Integers = self.times.cast(pa.int64()).to_numpy()
        return milliseconds


def read_statistics(values: pa.Array) -> StatisticsBlock:
    """Read n ≥ 1 messages of the statistics topic."""
    times, symbols, columns = _split(values, 4 * len(WINDOWS))
    averages, deviations, counts = [], [], []
    for position, window in enumerate(WINDOWS):
        label, average, deviation, ticks = columns[4 * position : 4 * position + 4]
        _check_label(label, "stats", position, window)
        averages.append(_doubles(_between(b'"avg_price":', average)))
        deviations.append(_nullable_doubles(_between(b'"std_price":', deviation)))
        counts.append(_between(b'"count":', ticks, _end(position)))
    return StatisticsBlock(symbols, times, np.stack(averages), np.stack(deviations), counts)


def table_rows(table: str, values: pa.Array) -> pa.RecordBatch:
    """n ≥ 1 messages of a result topic as rows of the table that is its copy (`tables.arrow_schema`)."""
    symbols, times, column = _ROWS[table](values)
    moments = times.cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    schema = arrow_schema(table)
    return pa.RecordBatch.from_arrays(
        [symbols, moments, column.cast(schema.field(2).type), times.cast(pa.date32())], schema=schema
    )


Rows = tuple[pa.Array, pa.Array, pa.Array]
"""Symbols, times and the column of results."""


def _statistics_rows(values: pa.Array) -> Rows:
    block = read_statistics(values)
    counts = np.stack([texts.cast(pa.int64()).to_numpy() for texts in block.counts])
    column = window_lists(
        {"avg_price": _column(block.averages), "std_price": _column(block.deviations), "count": _column(counts)},
        len(values),
    )
    return block.symbols, block.times, column


def _score_rows(values: pa.Array) -> Rows:
    times, symbols, columns = _split(values, 2 * len(WINDOWS))
    scores = []
    for position, window in enumerate(WINDOWS):
        label, score = columns[2 * position : 2 * position + 2]
        _check_label(label, "z_scores", position, window)
        scores.append(_nullable_doubles(_between(b'"zscore_price":', score, _end(position))))
    return symbols, times, window_lists({"zscore_price": _column(np.stack(scores))}, len(values))


def _passage_rows(direction: str) -> Callable[[pa.Array], Rows]:
    def rows(values: pa.Array) -> Rows:
        times, symbols, (seconds,) = _split(values, 1)
        return symbols, times, pa.array(_doubles(_between(f'"{direction}_window":'.encode(), seconds, b"}")))

    return rows


_ROWS: dict[str, Callable[[pa.Array], Rows]] = {
    "moving_stats": _statistics_rows,
    "zscores": _score_rows,
    "higher": _passage_rows("higher"),
    "lower": _passage_rows("lower"),
}


def window_lists(fields: dict[str, pa.Array], count: int) -> pa.Array:
    """A list for each of `count` rows, with an entry for each window.

    `fields`: the other members of the entries, each of shape (count * windows,), in the order of rows and windows.
    """
    labels = pa.array(list(WINDOWS) * count, pa.string())
    entries = pa.StructArray.from_arrays([labels, *fields.values()], names=["window", *fields])
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * len(WINDOWS)), entries)


def _column(matrix: Any) -> pa.Array:
    """Values of shape (windows, n) in the order of rows and windows, null for NaN."""
    return pa.array(matrix.T.ravel(), from_pandas=True)


def _split(values: pa.Array, fields: int) -> tuple[pa.Array, pa.Array, list[pa.Array]]:
    """The times and symbols of messages, and the texts between the commas that follow. Raises ValueError."""
    lines = pc.binary_join_element_wise(values.cast(pa.binary()), b"", b"\n").cast(pa.large_binary())
    begin, end = np.frombuffer(lines.buffers()[1], dtype="<i8")[[lines.offset, lines.offset + len(lines)]].tolist()
    names = [str(field) for field in range(2 + fields)]
    table = pa_csv.read_csv(
        pa.BufferReader(lines.buffers()[2].slice(begin, end - begin)),
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=end - begin + 1, column_names=names),
        parse_options=pa_csv.ParseOptions(quote_char=False, escape_char=False, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
        ),
    ).combine_chunks()
    if table.num_rows != len(values):
        raise ValueError(f"{table.num_rows} messages where there should be {len(values)}")
    times, symbols, *others = [column.chunk(0) for column in table.columns]
    moments = _between(b'{"timestamp":"', times, b'Z"').cast(pa.string()).cast(pa.timestamp("ms"))
    return moments, _between(b'"symbol":"', symbols, b'"').cast(pa.string()), others


def _check_label(label: pa.Array, member: str, position: int, window: str) -> None:
    begin = "" if position else f'"{member}":['
    _check(f'{begin}{{"window":"{window}"'.encode(), label)


def _end(position: int) -> bytes:
    """What closes the entry of a window."""
    return b"}" if position < len(WINDOWS) - 1 else b"}]}"


def _doubles(texts: pa.Array) -> Floats:
    numbers: Floats = texts.cast(pa.float64()).to_numpy()
    return numbers


def _nullable_doubles(texts: pa.Array) -> Floats:
    return _doubles(pc.if_else(pc.equal(texts, b"null"), b"nan", texts))


def _between(prefix: bytes, texts: pa.Array, suffix: bytes = b"") -> pa.Array:
    """What stands between a beginning and an end. Raises ValueError where these are not there."""
    _check(prefix, texts, suffix)
    return pc.binary_slice(texts, len(prefix), -len(suffix) if suffix else _TO_THE_END)


def _check(prefix: bytes, texts: pa.Array, suffix: bytes = b"") -> None:
    right = pc.starts_with(texts, prefix)
    if suffix:
        right = pc.and_(right, pc.ends_with(texts, suffix))
    if not pc.all(right).as_py():
        strange = texts.filter(pc.invert(right))[0].as_py()
        raise ValueError(f"not of a message that was published: {strange[:200]!r}, for {prefix!r}…{suffix!r}")
