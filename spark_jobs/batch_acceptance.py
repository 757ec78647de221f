"""The accept/reject rule applied to many messages at once, to the answers that it gives for each.

Belongs here: reading whole columns of well-formed messages, and handing all others to the rule. Does not belong here:
the rule (`acceptance`): what is said here about a message must be what it says.

Only messages that surely are ticks are read here: one pattern finds those that are written as producers write them, and
what a pattern cannot decide is calculated. All that is left goes to the rule, one by one, so that nothing is ever
rejected here. A pattern without groups is what is fast in RE2; where the parts are then follows from the quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.acceptance import END_MS, FIRST_MS, MAXIMUM_LEAD_MS, Tick, accept
from spark_jobs.contract import PRICE_SCALE, Integers

_Bytes = npt.NDArray[np.uint8]
_Flags = npt.NDArray[np.bool_]

_PRICE = r"(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,8})?"
_DATE = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_ZONE = r"(?:Z|[-+](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# \A and \z, as other anchors may also match at line feeds. Blanks are those of Python's `json.dumps`, or none.
_WELL_FORMED = (
    r'\A\{"symbol": ?"[A-Z0-9._-]{1,32}",'
    rf' ?"price": ?(?:{_PRICE}|"{_PRICE}"),'
    rf' ?"timestamp": ?"{_DATE}T{_TIME}{_ZONE}"\}}\z'
)
_QUOTES_BEFORE_SYMBOL, _QUOTES_BEFORE_PRICE = 3, 6
_QUOTES = 10
"""In a message whose price is not in quotes."""


def _weights(width: int, *columns: dict[int, int]) -> npt.NDArray[np.float64]:
    """A matrix of shape (width, columns) that makes numbers of rows of digits, from each number's {position: weight}.

    In doubles, as their product is many times as fast and exact for numbers of up to 15 digits.
    """
    matrix = np.zeros((width, len(columns)))
    for number, weights in enumerate(columns):
        matrix[list(weights), number] = list(weights.values())
    return matrix


# 0123456789 123456789 12
# 2025-05-08T04:12:38.300 to months since the year 0, day of the month, milliseconds of the day.
_MONTHS = {0: 12_000, 1: 1_200, 2: 120, 3: 12, 5: 10, 6: 1}
_DAY_MILLISECONDS = {11: 36_000_000, 12: 3_600_000, 14: 600_000, 15: 60_000, 17: 10_000, 18: 1_000}
_FRACTION = {20: 100, 21: 10, 22: 1}
_LOCAL_TIME = _weights(23, _MONTHS, {8: 10, 9: 1}, _DAY_MILLISECONDS | _FRACTION)
# +02:00 to minutes.
_OFFSET = _weights(6, {1: 600, 2: 60, 4: 10, 5: 1})
# As many digits on either side of the point, which is in the middle, as a price can have.
_WHOLE_PLACES, _PLACES = 10, 8
_POINT = _WHOLE_PLACES
_PARTS_OF_PRICE = _weights(
    _WHOLE_PLACES + 1 + _PLACES,
    {place: 10 ** (_POINT - 1 - place) for place in range(_WHOLE_PLACES)},
    {_POINT + place: 10 ** (_PLACES - place) for place in range(1, _PLACES + 1)},
)
_MONTHS_BEFORE_1970 = 1970 * 12 + 1
_DAY_MS = 86_400_000


class Verdicts(NamedTuple):
    """What the rule says of n messages."""

    symbols: list[str]
    """Those that occur, once each."""
    of_symbol: Integers
    """Shape (n,): where in `symbols` a tick's symbol is, -1 for a rejected message."""
    prices: Integers
    """Shape (n,), in 1e-8 units, 0 for a rejected message."""
    timestamps: Integers
    """Shape (n,), in milliseconds since the epoch, 0 for a rejected message."""
    reasons: dict[int, str]
    """Why not, for each rejected message by its position."""

    def ticks_by_symbol(self) -> Iterator[tuple[str, Integers]]:
        """Each symbol and the positions of its ticks, ascending."""
        order = np.argsort(self.of_symbol, kind="stable")
        ends = np.cumsum(np.bincount(self.of_symbol + 1, minlength=len(self.symbols) + 1))
        yield from zip(self.symbols, np.split(order, ends[:-1])[1:], strict=True)


def accept_batch(values: pa.Array, record_timestamps: Integers) -> Verdicts:
    """Decide about n messages what `accept` decides about each.

    `values` are the Kafka records' values, binary and null for a tombstone; `record_timestamps` the records' own times
    in milliseconds, of shape (n,).
    """
    of_symbol = np.full(len(values), -1)
    prices, timestamps = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    well_formed = pc.fill_null(pc.match_substring_regex(values, _WELL_FORMED), False)
    messages = np.flatnonzero(well_formed)
    ticks, symbols, of_symbol_read, prices_read, timestamps_read = _read(
        values.filter(well_formed), record_timestamps[messages]
    )
    messages = messages[ticks]
    of_symbol[messages], prices[messages], timestamps[messages] = of_symbol_read, prices_read, timestamps_read

    place = {symbol: at for at, symbol in enumerate(symbols)}
    reasons: dict[int, str] = {}
    others = np.flatnonzero(of_symbol < 0)
    for at, value in zip(others.tolist(), values.take(pa.array(others)).to_pylist(), strict=True):
        verdict = accept(value, int(record_timestamps[at]))
        if isinstance(verdict, Tick):
            of_symbol[at] = place.setdefault(verdict.symbol, len(place))
            prices[at], timestamps[at] = verdict.price, verdict.timestamp
        else:
            reasons[at] = verdict.reason
    return Verdicts(list(place), of_symbol, prices, timestamps, reasons)


def _read(values: pa.Array, record_timestamps: Integers) -> tuple[_Flags, list[str], Integers, Integers, Integers]:
    """Which of the well-formed messages are ticks; their symbols, and of the ticks the places in it, prices, times."""
    # With some to spare, as the last time may be shorter than what is read of a time.
    content = np.frombuffer(b"".join((*values.to_pylist(), bytes(len(_LOCAL_TIME)))), dtype=np.uint8)
    ends = np.cumsum(pc.binary_length(values).to_numpy(), dtype=np.int64)
    quotes = np.flatnonzero(content == ord('"'))
    after = np.searchsorted(quotes, ends)
    before = np.concatenate((np.zeros(1, dtype=np.int64), after))[:-1]

    timestamps, real = _timestamps(content, quotes[after - 2] + 1, quotes[after - 1])
    quoted = after - before > _QUOTES
    prices = _prices(content, quotes[before + _QUOTES_BEFORE_PRICE - 1] + 2, quotes[after - 4], quoted)
    ticks = real & (prices > 0) & (timestamps <= record_timestamps + MAXIMUM_LEAD_MS)

    opening = before[ticks] + _QUOTES_BEFORE_SYMBOL - 1
    symbols = _texts(content, quotes[opening] + 1, quotes[opening + 1]).dictionary_encode()
    return ticks, symbols.dictionary.to_pylist(), symbols.indices.to_numpy(), prices[ticks], timestamps[ticks]


def _rows(content: _Bytes, begin: Integers, width: int) -> _Bytes:
    """The `width` bytes from each position on, of shape (n, width)."""
    rows: _Bytes = np.lib.stride_tricks.sliding_window_view(content, width)[begin]
    return rows


def _numbers(texts: _Bytes, are_digits: _Flags | bool, weights: npt.NDArray[np.float64]) -> list[Integers]:
    """The numbers in rows of text, those of `weights`; what is no digit counts as 0."""
    digits = np.where(are_digits, texts - np.uint8(ord("0")), 0).astype(np.float64)
    return list((digits @ weights).astype(np.int64).T)


def _timestamps(content: _Bytes, begin: Integers, end: Integers) -> tuple[Integers, _Flags]:
    """Milliseconds since the epoch of well-formed timestamps between two positions, and which of them there are."""
    zones = _rows(content, end - _OFFSET.shape[0], _OFFSET.shape[0])
    zulu = zones[:, -1] == ord("Z")
    (minutes,) = _numbers(zones, ~zulu[:, np.newaxis], _OFFSET)
    minutes = np.where(zones[:, 0] == ord("-"), -minutes, minutes)

    # Up to the zone, where there are fewer digits of the second than are read.
    width = _LOCAL_TIME.shape[0]
    length = end - begin - np.where(zulu, 1, _OFFSET.shape[0])
    local = _rows(content, begin, width)
    months, day, milliseconds = _numbers(local, np.arange(width) < length[:, np.newaxis], _LOCAL_TIME)

    month = (months - _MONTHS_BEFORE_1970).astype("datetime64[M]")
    first_day, next_first_day = (each.astype("datetime64[D]").astype(np.int64) for each in (month, month + 1))
    timestamps = (first_day + day - 1) * _DAY_MS + milliseconds - minutes * 60_000
    there_is = (first_day + day <= next_first_day) & (timestamps >= FIRST_MS) & (timestamps < END_MS)
    return timestamps, there_is


def _prices(content: _Bytes, begin: Integers, next_name: Integers, quoted: _Flags) -> Integers:
    """Prices in 1e-8 units, from where they or a blank begin and where the next name does; some are in quotes."""
    begin = begin + (content[begin] == ord(" ")) + quoted
    end = next_name - 1 - (content[next_name - 1] == ord(" ")) - quoted
    # A point, if there is one, is within as many bytes; before the price come its name and the colon, as long as that.
    tail = _rows(content, end - _PLACES - 1, _PLACES + 1) == ord(".")
    places = (tail @ np.arange(_PLACES, -1, -1, dtype=np.float32)).astype(np.int64)
    point = end - places - (places > 0)
    position = np.arange(_PARTS_OF_PRICE.shape[0]) - _POINT
    are_digits = (position >= (begin - point)[:, np.newaxis]) & (position <= places[:, np.newaxis]) & (position != 0)
    whole, fraction = _numbers(_rows(content, point - _POINT, len(position)), are_digits, _PARTS_OF_PRICE)
    return whole * PRICE_SCALE + fraction


def _texts(content: _Bytes, begin: Integers, end: Integers) -> pa.Array:
    """The ASCII texts between two positions."""
    ends = np.cumsum(end - begin)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), ends))
    data = content[np.repeat(begin - offsets[:-1], end - begin) + np.arange(offsets[-1])]
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(begin), buffers)
