"""The accept/reject rule applied to many messages at once, to the answers that it gives for each.

Only values that surely are ticks are read here: one pattern finds those that are written as producers write them, and
what a pattern cannot decide is calculated. All that is left goes to the rule, one by one, and everything does if the
columns fail on something unforeseen. A pattern without groups is what is fast in RE2; where the parts are then follows
from the quotes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tickhouse.contract.arrays import Integers
from tickhouse.contract.validation import (
    AHEAD,
    END_MS,
    MAXIMUM_LEAD_MS,
    NO_RECORD_TIME,
    WRONG_KEY,
    Rejection,
    Tick,
    accept,
    read_tick,
)

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
_ZERO = np.uint8(ord("0"))
# Of a price written with all the digits that it can have, and of a time with milliseconds and an offset.
_WHOLE_PLACES, _PLACES = 10, 8
_LOCAL_TIME = "2025-05-08T04:12:38.300"
_OFFSET = "+00:00"
_MONTHS_BEFORE_1970 = 1970 * 12
_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


class ValidationResult(NamedTuple):
    """What the rule says of n messages."""

    symbols: list[str]
    """Those that ticks have, once each, and others that rejected messages would have."""
    of_symbol: Integers
    """Shape (n,): where in `symbols` a tick's symbol is, -1 for a rejected message."""
    prices: Integers
    """Shape (n,), in 1e-8 units, 0 for a rejected message."""
    timestamps: Integers
    """Shape (n,), in milliseconds since the epoch, 0 for a rejected message."""
    reasons: dict[int, str]
    """Why not, for each rejected message by its position."""

    @classmethod
    def none(cls, messages: int) -> ValidationResult:
        """Of so many messages, when there are no verdicts yet."""
        prices, timestamps = np.zeros((2, messages), dtype=np.int64)
        return cls([], np.full(messages, -1), prices, timestamps, {})

    def note(self, verdicts: Iterable[tuple[int, Tick | Rejection]]) -> None:
        """Take over the verdicts of the rule for one message, each with its position."""
        place = {symbol: at for at, symbol in enumerate(self.symbols)}
        for at, verdict in verdicts:
            if isinstance(verdict, Rejection):
                self.reasons[at] = verdict.reason
                continue
            self.of_symbol[at] = place.setdefault(verdict.symbol, len(place))
            self.prices[at], self.timestamps[at] = verdict.price, verdict.timestamp
        self.symbols[:] = place

    def reject(self, refused: _Flags, rejection: Rejection) -> None:
        """Make ticks, given by flags of shape (n,), rejected messages."""
        messages = np.flatnonzero(refused)
        for column, rejected in ((self.of_symbol, -1), (self.prices, 0), (self.timestamps, 0)):
            column[messages] = rejected
        self.reasons.update(dict.fromkeys(messages.tolist(), rejection.reason))

    def ticks_by_symbol(self) -> Iterator[tuple[str, Integers]]:
        """Each symbol that has ticks and their positions, ascending."""
        order = np.argsort(self.of_symbol, kind="stable")
        ends = np.cumsum(np.bincount(self.of_symbol + 1, minlength=len(self.symbols) + 1))
        for symbol, mine in zip(self.symbols, np.split(order, ends[:-1])[1:], strict=True):
            if len(mine):
                yield symbol, mine


def accept_batch(keys: pa.Array, values: pa.Array, record_timestamps: Integers) -> ValidationResult:
    """Decide about n messages what `accept` decides about each.

    `keys` and `values` are the Kafka records', binary and null where there is none; `record_timestamps` the records'
    own times in milliseconds, of shape (n,), negative where a record has none.
    """
    try:
        verdicts = _read_by_columns(values)
        symbols = _places(keys, verdicts.symbols)
    except Exception:
        _log.exception("%d messages are judged one by one, as all at once failed", len(values))
        messages = zip(keys.to_pylist(), values.to_pylist(), record_timestamps.tolist(), strict=True)
        return _collected(accept(*message) for message in messages)
    ticks = verdicts.of_symbol >= 0
    in_time = (record_timestamps >= 0) & (record_timestamps < END_MS)
    keyed = symbols == verdicts.of_symbol
    ahead = verdicts.timestamps - MAXIMUM_LEAD_MS > record_timestamps
    verdicts.reject(ticks & ~in_time, NO_RECORD_TIME)
    verdicts.reject(ticks & in_time & ~keyed, WRONG_KEY)
    verdicts.reject(ticks & in_time & keyed & ahead, AHEAD)
    return verdicts


def read_batch(values: pa.Array) -> ValidationResult:
    """What `read_tick` says of each of n values, binary and null where there is none."""
    try:
        return _read_by_columns(values)
    except Exception:
        _log.exception("%d messages are read one by one, as all at once failed", len(values))
        return _collected(read_tick(value) for value in values.to_pylist())


def _collected(verdicts: Iterable[Tick | Rejection]) -> ValidationResult:
    found = list(verdicts)
    noted = ValidationResult.none(len(found))
    noted.note(enumerate(found))
    return noted


def _places(keys: pa.Array, symbols: Sequence[str]) -> Integers:
    """Where in `symbols` the symbol is that each key spells; -2 where there is none."""
    place = {symbol.encode(): at for at, symbol in enumerate(symbols)}
    encoded = keys.dictionary_encode()
    places = np.array([*(place.get(key, -2) for key in encoded.dictionary.to_pylist()), -2], dtype=np.int64)
    found: Integers = places[pc.fill_null(encoded.indices, len(places) - 1).to_numpy()]
    return found


def _read_by_columns(values: pa.Array) -> ValidationResult:
    """What `read_batch` returns; whatever was not foreseen is raised."""
    well_formed = pc.fill_null(pc.match_substring_regex(values, _WELL_FORMED), False)
    messages = np.flatnonzero(well_formed)
    ticks, symbols, of_symbol, prices, timestamps = _read(values.filter(well_formed))
    messages = messages[ticks]
    verdicts = ValidationResult.none(len(values))
    verdicts.symbols[:] = symbols
    verdicts.of_symbol[messages], verdicts.prices[messages] = of_symbol, prices
    verdicts.timestamps[messages] = timestamps
    others = np.flatnonzero(verdicts.of_symbol < 0)
    verdicts.note(zip(others.tolist(), map(read_tick, values.take(pa.array(others)).to_pylist()), strict=True))
    return verdicts


def _read(values: pa.Array) -> tuple[_Flags, list[str], Integers, Integers, Integers]:
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
    ticks = real & (prices > 0)

    opening = before[ticks] + _QUOTES_BEFORE_SYMBOL - 1
    symbols = _texts(content, quotes[opening] + 1, quotes[opening + 1]).dictionary_encode()
    return ticks, symbols.dictionary.to_pylist(), symbols.indices.to_numpy(), prices[ticks], timestamps[ticks]


def _bytes(content: _Bytes, begin: Integers, length: int) -> _Bytes:
    """So many bytes from each of n positions on, of shape (length, n), as calculations are for all texts at once."""
    texts = np.lib.stride_tricks.sliding_window_view(content, length)[begin]
    return np.ascontiguousarray(texts.T)


def _number(digits: _Bytes) -> Integers:
    """The numbers in n columns of digits, the first of which counts most."""
    number = np.zeros(digits.shape[1], dtype=np.int64)
    for digit in digits:
        number *= 10
        number += digit
    return number


def _timestamps(content: _Bytes, begin: Integers, end: Integers) -> tuple[Integers, _Flags]:
    """Milliseconds since the epoch of well-formed timestamps between two positions, and which of them there are."""
    zone = _bytes(content, end - len(_OFFSET), len(_OFFSET))
    utc = zone[-1] == ord("Z")
    zone_digits = zone - _ZERO
    minutes = np.where(utc, 0, _number(zone_digits[1:3]) * 60 + _number(zone_digits[4:6]))
    minutes = np.where(zone[0] == ord("-"), -minutes, minutes)

    digits = _bytes(content, begin, len(_LOCAL_TIME)) - _ZERO
    length = end - begin - np.where(utc, 1, len(_OFFSET))
    place = np.arange(len(_LOCAL_TIME))[:, np.newaxis]
    digits[20:] *= place[20:] < length  # fewer digits of the second, or none, stand for zeros
    month = _number(digits[0:4]) * 12 + _number(digits[5:7]) - 1
    day = _number(digits[8:10])
    seconds = (_number(digits[11:13]) * 60 + _number(digits[14:16])) * 60 + _number(digits[17:19])
    milliseconds = (seconds - minutes * 60) * 1_000 + _number(digits[20:23])

    first_day = _first_days(month)
    timestamps = (first_day + day - 1) * _DAY_MS + milliseconds
    there_is = (first_day + day <= _first_days(month + 1)) & (timestamps >= 0) & (timestamps < END_MS)
    return timestamps, there_is


def _first_days(months: Integers) -> Integers:
    """Days from the epoch to the first day of months, which are counted from January of the year 0."""
    days: Integers = (months - _MONTHS_BEFORE_1970).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return days


def _prices(content: _Bytes, begin: Integers, next_name: Integers, quoted: _Flags) -> Integers:
    """Prices in 1e-8 units, from where they or a blank begin and where the next name does; some are in quotes."""
    begin = begin + (content[begin] == ord(" ")) + quoted
    end = next_name - 1 - (content[next_name - 1] == ord(" ")) - quoted
    # A point, if there is one, is within as many bytes; before the price come its name and the colon, as long as that.
    tail = _bytes(content, end - _PLACES - 1, _PLACES + 1)
    places = ((tail == ord(".")) * np.arange(_PLACES, -1, -1)[:, np.newaxis]).max(axis=0)
    point = end - places - (places > 0)
    digits = _bytes(content, point - _WHOLE_PLACES, _WHOLE_PLACES + 1 + _PLACES) - _ZERO
    place = np.arange(len(digits))[:, np.newaxis] - _WHOLE_PLACES
    digits *= (place >= begin - point) & (place <= places)  # what is beside the price stands for zeros
    return _number(np.delete(digits, _WHOLE_PLACES, axis=0))


def _texts(content: _Bytes, begin: Integers, end: Integers) -> pa.Array:
    """The ASCII texts between two positions."""
    ends = np.cumsum(end - begin)
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), ends))
    data = content[np.repeat(begin - offsets[:-1], end - begin) + np.arange(offsets[-1])]
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(begin), buffers)
