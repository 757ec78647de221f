"""The rule that decides whether a message on the price topic is a tick: pure functions on bytes and numbers.

The verdict depends neither on the version of Python nor on its Unicode tables: patterns name every character that they
take, and use nothing newer than Python 3.11.0 or faulty in it (its possessive quantifiers are: gh-106052). Only the
standard library is needed.
"""

from __future__ import annotations

import logging
import re
from datetime import date
from typing import NamedTuple

from tickhouse.contract.names import PRICE_SCALE, SYMBOL_PATTERN
from tickhouse.contract.strict_json import Member, NotJson, object_members

MAXIMUM_LEAD_MS = 60_000
"""How far a tick's timestamp may be ahead of its Kafka record's own, in milliseconds."""
END_MS = 9_214_646_400_000
"""2262-01-01T00:00:00Z: the first time, in milliseconds since the epoch, that some engines reading the tables cannot
hold. Times of ticks and of their records begin at 0 and end before it."""


class Tick(NamedTuple):
    """One observed price: `price` in 1e-8 units, `timestamp` in milliseconds since the epoch."""

    symbol: str
    price: int
    timestamp: int


class Rejection(NamedTuple):
    """Why a message is not a tick."""

    reason: str


INTERNAL = "internal: "
"""How the reason begins when the rule itself failed on a message."""
NO_RECORD_TIME = Rejection("record timestamp: absent or outside the years 1970 to 2261")
WRONG_KEY = Rejection("key: not the symbol")
AHEAD = Rejection("timestamp: more than 60 s ahead of the Kafka record")

_NO_TIME = Rejection("timestamp: no such time in the years 1970 to 2261 (UTC)")
_NO_PRICE = Rejection("price: not a positive number exact as decimal(18,8)")
_SYMBOL = re.compile(SYMBOL_PATTERN)
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?")
_PRICE_PLACES = 8
_PRICE_WHOLE_PLACES = 10
_LONGEST_EXPONENT = 18  # more digits than any text of a message's size can make up for
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
# What every well-behaved producer sends; everything else takes the thorough path to the same answer.
_CANONICAL = re.compile(
    rb'\{"symbol":"([A-Z0-9._-]{1,32})","price":(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,8}))?,'
    rb'"timestamp":"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?'
    rb'(?:Z|\+00:00))"\}'
)
_FIELDS = ("symbol", "price", "timestamp")
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_DAY_MS = 86_400_000
_MOST_LOGGED = 100
_log = logging.getLogger(__name__)
_days: dict[str, int | None] = {}
_internal_failures = 0


def accept(key: bytes | None, value: bytes | None, record_timestamp: int | None) -> Tick | Rejection:
    """Decide whether a message on the price topic is a tick.

    `key` and `value` are the Kafka record's, `record_timestamp` its own time in milliseconds, None where it has none.
    Every message gets one of the two answers; nothing raises.
    """
    try:
        verdict = _read(value)
        if isinstance(verdict, Rejection):
            return verdict
        if record_timestamp is None or not 0 <= record_timestamp < END_MS:
            return NO_RECORD_TIME
        if key != verdict.symbol.encode():
            return WRONG_KEY
        return AHEAD if verdict.timestamp > record_timestamp + MAXIMUM_LEAD_MS else verdict
    except Exception as error:
        return _internal(error, value)


def read_tick(value: bytes | None) -> Tick | Rejection:
    """What a message's value alone says: the tick, or why there is none. Nothing raises."""
    try:
        return _read(value)
    except Exception as error:
        return _internal(error, value)


def _internal(error: Exception, value: bytes | None) -> Rejection:
    """What the rule did not foresee is a reject like any other, and is logged loudly as far as logs can bear it."""
    global _internal_failures
    _internal_failures += 1
    if _internal_failures <= _MOST_LOGGED:
        shown = repr(value[:200] if value is not None else value)
        _log.error("the accept rule failed on a message, which is rejected: %s", shown, exc_info=error)
    return Rejection(f"{INTERNAL}{type(error).__name__}: {error}"[:500])


def _read(value: bytes | None) -> Tick | Rejection:
    if value is None:
        return Rejection("tombstone: no value")
    match = _CANONICAL.fullmatch(value)
    if match is None:
        return _read_thoroughly(value)
    symbol, whole, fraction, timestamp = match.groups()
    milliseconds = parse_timestamp(timestamp.decode())
    if milliseconds is None:
        return _NO_TIME
    price = int(whole) * PRICE_SCALE + (int(fraction.ljust(8, b"0")) if fraction else 0)
    return Tick(symbol.decode(), price, milliseconds) if price else _NO_PRICE


def _read_thoroughly(value: bytes) -> Tick | Rejection:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return Rejection("value: not UTF-8")
    try:
        members = object_members(text)
    except NotJson:
        return Rejection("value: not JSON")
    if members is None:
        return Rejection("value: not a JSON object")
    fields: dict[str, Member] = {}
    for member in members:
        if member.name in fields and member.name in _FIELDS:
            return Rejection(f"{member.name}: occurs more than once")
        fields[member.name] = member
    for name in _FIELDS:
        if name not in fields:
            return Rejection(f"{name}: missing")
    symbol, timestamp = fields["symbol"].string, fields["timestamp"].string
    if symbol is None or not _SYMBOL.fullmatch(symbol):
        return Rejection("symbol: not a string of 1 to 32 of A-Z 0-9 . _ -, kana, Han or Hangul")
    price_text = fields["price"].number or fields["price"].string
    price = None if price_text is None else parse_price(price_text)
    if price is None:
        return _NO_PRICE
    if timestamp is None:
        return Rejection("timestamp: not a string")
    if not _TIMESTAMP.fullmatch(timestamp):
        return Rejection("timestamp: not RFC 3339 with T, seconds and an offset")
    milliseconds = parse_timestamp(timestamp)
    return _NO_TIME if milliseconds is None else Tick(symbol, price, milliseconds)


def parse_timestamp(text: str) -> int | None:
    """Milliseconds since the epoch of a tick's RFC 3339 timestamp (finer digits cut off), or None if it is not one."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    day_text, hour, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    day = _day_number(day_text)
    if day is None:
        return None
    milliseconds = day * _DAY_MS + ((int(hour) * 60 + int(minute)) * 60 + int(second)) * 1_000
    if fraction:
        milliseconds += int(fraction[:3].ljust(3, "0"))
    if sign:
        offset = (int(offset_hours) * 60 + int(offset_minutes)) * 60_000
        milliseconds += offset if sign == "-" else -offset
    return milliseconds if 0 <= milliseconds < END_MS else None


def _day_number(text: str) -> int | None:
    """Days since the epoch of `YYYY-MM-DD`, or None where there is no such day."""
    try:
        return _days[text]
    except KeyError:
        pass
    day: int | None
    try:
        day = date(int(text[0:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH_DAY
    except ValueError:
        day = None
    if len(_days) > 10_000:
        _days.clear()
    _days[text] = day
    return day


def parse_price(text: str) -> int | None:
    """The price in 1e-8 units, or None unless `text` is a JSON number that is positive and exact as decimal(18,8)."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_text = match.groups(default="")
    digits = (whole + fraction).rstrip("0")
    significant = digits.lstrip("0")
    exponent_digits = exponent_text.lstrip("+-").lstrip("0")
    if sign or not significant or len(exponent_digits) > _LONGEST_EXPONENT:
        return None
    # value = digits * 10^exponent, with neither leading nor trailing zeros.
    exponent = int(exponent_digits or "0") * (-1 if exponent_text.startswith("-") else 1)
    exponent += len(whole) - len(digits)
    if exponent < -_PRICE_PLACES or len(significant) + exponent > _PRICE_WHOLE_PLACES:
        return None
    scaled: int = int(significant) * 10 ** (exponent + _PRICE_PLACES)
    return scaled
