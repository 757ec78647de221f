"""Results read back from their topics: the statistics for the z-scores, and all of them as rows of the Delta tables.

The messages go to Arrow's CSV reader. It takes a fifth of the time of its JSON reader, and messages of one topic differ
only in what stands between the same commas. Others may write to a topic, too: a message that is no result is foreign
and left out, whatever it is. Messages are looked at one by one only where a block of them cannot be read as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, SYMBOL_PATTERN, WINDOWS, ZSCORE_TOPIC
from tickhouse.contract.tables import arrow_schema
from tickhouse.contract.validation import END_MS

_TO_THE_END = 2**31 - 1
"""Longer than any text; Arrow's slices of bytes need an end."""
_SYMBOL = re.compile(SYMBOL_PATTERN)
_Flags = npt.NDArray[np.bool_]


class Results(NamedTuple):
    """The n of a block's messages that are results of ours."""

    rows: Integers
    """Shape (n,): where in the block they are."""
    symbols: pa.DictionaryArray
    timestamps: Integers
    """Milliseconds since the epoch, shape (n,)."""
    columns: tuple[npt.NDArray[Any], ...]
    """Each of shape (windows, n), or (1, n) where there are no windows; NaN where null."""


def read_results(topic: str, keys: pa.Array, values: pa.Array) -> Results:
    """The results among the messages of an output topic, given as binary arrays of n ≥ 0 keys and values.

    A message is a result if it has the form that `messages` gives it, the symbol as its key, a time that a tick can
    have, and no number that is infinite or NaN. Nothing else about a message matters, and nothing raises.
    """
    split = _SPLITTERS[topic]
    rows = np.arange(len(values))
    try:
        symbols, times, columns, sound = split(values)
    except Exception:
        rows = _readable(topic, values)
        if not len(rows):
            return Results(rows, pa.array([], pa.string()).dictionary_encode(), rows, ())
        symbols, times, columns, sound = split(values.take(pa.array(rows)))
        keys = keys.take(pa.array(rows))
    timestamps = times.cast(pa.int64()).to_numpy()
    keyed = pc.fill_null(pc.equal(keys, symbols.cast(pa.binary())), False).to_numpy(zero_copy_only=False)
    encoded = symbols.dictionary_encode()
    valid = np.array([_SYMBOL.fullmatch(symbol) is not None for symbol in encoded.dictionary.to_pylist()])
    ours = sound & keyed & valid[encoded.indices.to_numpy()] & (timestamps >= 0) & (timestamps < END_MS)
    if ours.all():
        return Results(rows, encoded, timestamps, columns)
    chosen = tuple(column[:, ours] for column in columns)
    return Results(rows[ours], symbols.filter(pa.array(ours)).dictionary_encode(), timestamps[ours], chosen)


def table_rows(table: str, results: Results) -> pa.RecordBatch:
    """Results as rows of the table that is their topic's copy (`tables.arrow_schema`)."""
    schema = arrow_schema(table)
    if not len(results.rows):
        return pa.RecordBatch.from_pylist([], schema=schema)
    times = pa.array(results.timestamps).cast(pa.timestamp("ms", tz="UTC"))
    column = _LISTS[table](results.columns) if table in _LISTS else pa.array(results.columns[0][0])
    arrays = [results.symbols, times, column, times.cast(pa.date32())]
    return pa.RecordBatch.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema
    )


def window_lists(fields: dict[str, pa.Array], count: int) -> pa.Array:
    """A list for each of `count` rows, with an entry for each window.

    `fields`: the other members of the entries, each of shape (count * windows,), in the order of rows and windows.
    """
    labels = pa.array(list(WINDOWS) * count, pa.string())
    entries = pa.StructArray.from_arrays([labels, *fields.values()], names=["window", *fields])
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * len(WINDOWS)), entries)


def _lists_of(*names: str) -> Callable[[tuple[npt.NDArray[Any], ...]], pa.Array]:
    def lists(columns: tuple[npt.NDArray[Any], ...]) -> pa.Array:
        # In the order of rows and windows, null for NaN.
        fields = (pa.array(column.T.ravel(), from_pandas=True) for column in columns)
        return window_lists(dict(zip(names, fields, strict=True)), columns[0].shape[1])

    return lists


_LISTS = {"moving_stats": _lists_of("avg_price", "std_price", "count"), "zscores": _lists_of("zscore_price")}

_Split = tuple[pa.Array, pa.Array, tuple[npt.NDArray[Any], ...], _Flags]
"""Of n messages: symbols, times, columns as in `Results`, and which of them have no number that is not one."""


def _readable(topic: str, values: pa.Array) -> Integers:
    """Which messages can be split: of those that look like results, the ones that cannot are found by halves."""
    like_ours = pc.and_(pc.starts_with(values, b'{"timestamp":"'), pc.equal(_count(values, ","), _COMMAS[topic]))
    for line_break in ("\n", "\r"):
        like_ours = pc.and_(like_ours, pc.equal(_count(values, line_break), 0))
    found = [np.zeros(0, dtype=np.int64)]
    waiting = [np.flatnonzero(pc.fill_null(like_ours, False))]
    while waiting:
        rows = waiting.pop()
        try:
            if len(rows):
                _SPLITTERS[topic](values.take(pa.array(rows)))
                found.append(rows)
        except Exception:
            if len(rows) > 1:
                waiting += np.array_split(rows, 2)
    return np.sort(np.concatenate(found))


def _count(values: pa.Array, letter: str) -> pa.Array:
    return pc.count_substring(values, letter)


def _split_statistics(values: pa.Array) -> _Split:
    times, symbols, columns = _split(values, 4 * len(WINDOWS))
    averages, deviations, counts = [], [], []
    sound = np.ones(len(values), dtype=np.bool_)
    for position, window in enumerate(WINDOWS):
        label, average, deviation, ticks = columns[4 * position : 4 * position + 4]
        _check_label(label, "stats", position, window)
        averages.append(_doubles(_between(b'"avg_price":', average), sound))
        deviations.append(_nullable_doubles(_between(b'"std_price":', deviation), sound))
        counts.append(_between(b'"count":', ticks, _end(position)).cast(pa.int64()).to_numpy())
    return symbols, times, (np.stack(averages), np.stack(deviations), np.stack(counts)), sound


def _split_scores(values: pa.Array) -> _Split:
    times, symbols, columns = _split(values, 2 * len(WINDOWS))
    scores = []
    sound = np.ones(len(values), dtype=np.bool_)
    for position, window in enumerate(WINDOWS):
        label, score = columns[2 * position : 2 * position + 2]
        _check_label(label, "z_scores", position, window)
        scores.append(_nullable_doubles(_between(b'"zscore_price":', score, _end(position)), sound))
    return symbols, times, (np.stack(scores),), sound


def _split_passages(direction: str) -> Callable[[pa.Array], _Split]:
    def split(values: pa.Array) -> _Split:
        times, symbols, (seconds,) = _split(values, 1)
        sound = np.ones(len(values), dtype=np.bool_)
        waits = _doubles(_between(f'"{direction}_window":'.encode(), seconds, b"}"), sound)
        return symbols, times, (waits[np.newaxis],), sound

    return split


_SPLITTERS: dict[str, Callable[[pa.Array], _Split]] = {
    MOVING_TOPIC: _split_statistics,
    ZSCORE_TOPIC: _split_scores,
    HIGHER_TOPIC: _split_passages("higher"),
    LOWER_TOPIC: _split_passages("lower"),
}


_COMMAS = {MOVING_TOPIC: 1 + 4 * len(WINDOWS), ZSCORE_TOPIC: 1 + 2 * len(WINDOWS), HIGHER_TOPIC: 2, LOWER_TOPIC: 2}


def _split(values: pa.Array, fields: int) -> tuple[pa.Array, pa.Array, list[pa.Array]]:
    """The times and symbols of messages, and the texts between the commas that follow. Raises ValueError."""
    if values.null_count:
        raise ValueError("a message without a value")
    lines = pc.binary_join_element_wise(values, b"", b"\n").cast(pa.large_binary())
    begin, end = np.frombuffer(lines.buffers()[1], dtype="<i8")[[lines.offset, lines.offset + len(lines)]].tolist()
    text = lines.buffers()[2].slice(begin, end - begin)
    letters = np.frombuffer(text, dtype=np.uint8)
    if np.count_nonzero(letters == ord("\n")) != len(values) or np.any(letters == ord("\r")):
        raise ValueError("a message of more than a line")
    if letters[0] != ord("{"):
        raise ValueError("a byte order mark, which the reader would pass over")
    names = [str(field) for field in range(2 + fields)]
    table = pa_csv.read_csv(
        pa.BufferReader(text),
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
    expected = f'{begin}{{"window":"{window}"'.encode()
    if not pc.all(pc.equal(label, expected)).as_py():
        raise ValueError(f"not the window {window}")


def _end(position: int) -> bytes:
    """What closes the entry of a window."""
    return b"}" if position < len(WINDOWS) - 1 else b"}]}"


def _doubles(texts: pa.Array, sound: _Flags) -> Floats:
    """Numbers; notes in `sound` where one is infinite or NaN."""
    numbers: Floats = texts.cast(pa.float64()).to_numpy()
    sound &= np.isfinite(numbers)
    return numbers


def _nullable_doubles(texts: pa.Array, sound: _Flags) -> Floats:
    null = pc.equal(texts, b"null")
    numbers: Floats = pc.if_else(null, b"nan", texts).cast(pa.float64()).to_numpy()
    sound &= np.isfinite(numbers) ^ null.to_numpy(zero_copy_only=False)
    return numbers


def _between(prefix: bytes, texts: pa.Array, suffix: bytes = b"") -> pa.Array:
    """What stands between a beginning and an end. Raises ValueError where these are not there."""
    right = pc.starts_with(texts, prefix)
    if suffix:
        right = pc.and_(right, pc.ends_with(texts, suffix))
    if not pc.all(right).as_py():
        raise ValueError(f"not between {prefix!r} and {suffix!r}")
    return pc.binary_slice(texts, len(prefix), -len(suffix) if suffix else _TO_THE_END)
