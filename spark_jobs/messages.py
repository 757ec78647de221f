"""The JSON forms of all results: many messages formed at once, and the statistics read back.

Belongs here: what a result looks like on a topic, as pure functions from arrays to bytes and back. Does not belong
here: what ticks look like (`acceptance`), how results come to be (`sliding`, `matching`, `passage`).

Messages of all symbols are formed together, column by column in Arrow: one by one they cost more than all that is
computed for them. Until then results travel as packed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from spark_jobs.contract import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, WINDOWS, ZSCORE_TOPIC, Floats, Integers

_WORD = np.dtype("<i8")


def pack_results(timestamps: Integers, *columns: Integers | Floats) -> bytes:
    """n results of a symbol as 8-byte words: `timestamps` (n,) in milliseconds, then arrays of shape (n,) or (k, n)."""
    rows = [np.atleast_2d(column) for column in (timestamps, *columns)]
    return np.concatenate([row.astype(row.dtype.newbyteorder("<")).view(_WORD) for row in rows]).tobytes()


def form_messages(topic: str, results: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
    """The symbol and the message of each result, from symbols and their results as `pack_results` gave them.

    What a topic's results are packed from: see `moving`, `z_scores`, `passages`.
    """
    form, rows = _FORMS[topic]
    blocks = [np.frombuffer(packed, dtype=_WORD).reshape(rows, -1) for _, packed in results]
    names = [symbol for (symbol, _), block in zip(results, blocks, strict=True) for _ in range(block.shape[1])]
    if not names:
        return [], []
    lines = form(pa.array(names, pa.string()), np.concatenate(blocks, axis=1))
    return names, lines.cast(pa.binary()).to_pylist()


Words = npt.NDArray[np.int64]


def _moving(symbols: pa.Array, words: Words) -> pa.Array:
    count = len(WINDOWS)
    averages, deviations = _numbers(words[1 : 1 + count]), _numbers(words[1 + count : 1 + 2 * count])
    pieces: list[Any] = [*_head(symbols, words[0]), '"stats":[']
    for window, average, deviation, ticks in zip(
        WINDOWS, averages, deviations, _integers(words[1 + 2 * count :]), strict=True
    ):
        pieces[-1] += f'{{"window":"{window}","avg_price":'
        pieces += [average, ',"std_price":', deviation, ',"count":', ticks, "},"]
    pieces[-1] = "}]}"
    return _joined(pieces)


def _z_scores(symbols: pa.Array, words: Words) -> pa.Array:
    pieces: list[Any] = [*_head(symbols, words[0]), '"z_scores":[']
    for window, score in zip(WINDOWS, _numbers(words[1:]), strict=True):
        pieces[-1] += f'{{"window":"{window}","zscore_price":'
        pieces += [score, "},"]
    pieces[-1] = "}]}"
    return _joined(pieces)


def _passages(direction: str) -> Callable[[pa.Array, Words], pa.Array]:
    def form(symbols: pa.Array, words: Words) -> pa.Array:
        (seconds,) = _numbers((words[1:] / 1_000).view(_WORD))
        return _joined([*_head(symbols, words[0]), f'"{direction}_window":', seconds, "}"])

    return form


_FORMS: dict[str, tuple[Callable[[pa.Array, Words], pa.Array], int]] = {
    MOVING_TOPIC: (_moving, 1 + 3 * len(WINDOWS)),
    ZSCORE_TOPIC: (_z_scores, 1 + len(WINDOWS)),
    HIGHER_TOPIC: (_passages("higher"), 2),
    LOWER_TOPIC: (_passages("lower"), 2),
}
"""For each topic, the form of its messages and in how many rows of words its results are packed."""


def _head(symbols: pa.Array, timestamps: Integers) -> list[Any]:
    times = pa.array(timestamps).cast(pa.timestamp("ms")).cast(pa.string())
    return ['{"timestamp":"', pc.utf8_replace_slice(times, 10, 11, "T"), 'Z","symbol":"', symbols, '",']


def _numbers(words: Words) -> list[pa.Array]:
    """The doubles of each row in the shortest form that reads back as the same double; null for NaN."""
    values = np.ascontiguousarray(words).view("<f8").ravel()
    texts = pa.array(values, from_pandas=True).cast(pa.string())
    whole = values == np.trunc(values)
    if whole.any():
        # Without a point or an exponent a reader that goes by the form would take them for integers.
        bare = pc.and_(pa.array(whole), pc.invert(pc.match_substring(texts, "e")))
        texts = pc.if_else(bare, pc.binary_join_element_wise(texts, "0", "."), texts)
    return _rows(texts, len(words))


def _integers(words: Words) -> list[pa.Array]:
    return _rows(pa.array(words.ravel()).cast(pa.string()), len(words))


def _rows(texts: pa.Array, count: int) -> list[pa.Array]:
    length = len(texts) // count
    return [texts.slice(row * length, length) for row in range(count)]


def _joined(pieces: list[Any]) -> pa.Array:
    """Texts and columns of n texts put together, null as it is in JSON."""
    return pc.binary_join_element_wise(*pieces, "", null_handling="replace", null_replacement="null")


class StatisticsBlock(NamedTuple):
    """n statistics messages read back; averages and deviations have shape (windows, n), NaN where null."""

    symbols: pa.Array
    timestamps: Integers
    averages: Floats
    deviations: Floats


def read_statistics(values: list[bytes]) -> StatisticsBlock:
    """Read n ≥ 1 messages of the statistics topic as they were formed here, so to Arrow's CSV reader.

    It takes a fifth of the time of its JSON reader, as messages differ only in what stands between the same commas.
    They are our own output: anything odd in what is read of them is a fault and raises ValueError.
    """
    content = b"\n".join(values)
    fields = 2 + 4 * len(WINDOWS)
    table = pa_csv.read_csv(
        pa.BufferReader(content),
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=len(content) + 1, column_names=[str(field) for field in range(fields)]
        ),
        parse_options=pa_csv.ParseOptions(quote_char=False, escape_char=False),
        convert_options=pa_csv.ConvertOptions(
            column_types={str(field): pa.string() for field in range(fields)}, strings_can_be_null=False
        ),
    ).combine_chunks()
    if table.num_rows != len(values):
        raise ValueError(f"{table.num_rows} statistics messages where there should be {len(values)}")
    columns = [column.chunk(0) for column in table.columns]
    times = _between('{"timestamp":"', columns[0], 'Z"')
    symbols = _between('"symbol":"', columns[1], '"')
    averages, deviations = [], []
    for position, window in enumerate(WINDOWS):
        label, average, deviation, ticks = columns[2 + 4 * position : 6 + 4 * position]
        begin, end = "" if position else '"stats":[', "" if position < len(WINDOWS) - 1 else "]}"
        _between(f'{begin}{{"window":"{window}"', label, "")
        averages.append(_between('"avg_price":', average, "").cast(pa.float64()).to_numpy())
        spread = _between('"std_price":', deviation, "")
        deviations.append(pc.if_else(pc.equal(spread, "null"), "nan", spread).cast(pa.float64()).to_numpy())
        _between('"count":', ticks, "}" + end)
    times = pc.replace_substring(times, "T", " ").cast(pa.timestamp("ms"))
    return StatisticsBlock(symbols, times.cast(pa.int64()).to_numpy(), np.stack(averages), np.stack(deviations))


def _between(prefix: str, texts: pa.Array, suffix: str) -> pa.Array:
    """What stands between two texts. Raises ValueError where these are not there."""
    right = pc.starts_with(texts, prefix)
    if suffix:
        right = pc.and_(right, pc.ends_with(texts, suffix))
    if not pc.all(right).as_py():
        strange = texts.filter(pc.invert(right))[0].as_py()
        raise ValueError(f"not of a statistics message: {strange[:200]!r}, for {prefix}…{suffix}")
    return pc.utf8_slice_codeunits(texts, len(prefix), -len(suffix) if suffix else None)
