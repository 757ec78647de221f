"""The JSON forms of all results: many messages formed at once.

Messages of all symbols are formed together, column by column in Arrow: one by one they cost more than all that is
computed for them. Until then results travel as packed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tickhouse.contract.arrays import Floats, Integers
from tickhouse.contract.names import HIGHER_TOPIC, LOWER_TOPIC, MOVING_TOPIC, WINDOWS, ZSCORE_TOPIC

_WORD = np.dtype("<i8")
_MESSAGES = 20_000


def pack_results(timestamps: Integers, *columns: Integers | Floats) -> bytes:
    """n results of a symbol as 8-byte words: `timestamps` (n,) in milliseconds, then arrays of shape (n,) or (k, n)."""
    rows = [np.atleast_2d(column) for column in (timestamps, *columns)]
    return np.concatenate([row.astype(row.dtype.newbyteorder("<")).view(_WORD) for row in rows]).tobytes()


def portions(topic: str, results: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Symbols and their results in the same order, a moderate number at a time: what messages are formed from at once.

    Messages take ten times the memory of their results, and a micro-batch may have hundreds of thousands.
    """
    _, rows = _FORMS[topic]
    portion, count = [], 0
    for symbol, packed in results:
        words = np.frombuffer(packed, dtype=_WORD).reshape(rows, -1)
        for begin in range(0, words.shape[1], _MESSAGES):
            piece = words[:, begin : begin + _MESSAGES]
            portion.append((symbol, piece.tobytes()))
            count += piece.shape[1]
            if count >= _MESSAGES:
                yield portion
                portion, count = [], 0
    if portion:
        yield portion


def packed_rows(topic: str) -> int:
    """In how many rows of words the results of a topic are packed."""
    return _FORMS[topic][1]


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
