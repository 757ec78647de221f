"""The accept/reject rule for ticks: what decides about one message.

Belongs here: anything that decides what a tick is, as pure functions on bytes and numbers. Does not belong here: what
is JSON (`strict_json`), applying the rule to whole batches (`batch_validation`, which must always agree with this).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from tickhouse.contract.names import PRICE_SCALE
from tickhouse.contract.strict_json import Member, NotJson, object_members

MAXIMUM_LEAD_MS = 60_000
"""How far a tick's timestamp may be ahead of its Kafka record's own, in milliseconds."""


class Tick(NamedTuple):
    """One observed price: `price` in 1e-8 units, `timestamp` in milliseconds since the epoch."""

    symbol: str
    price: int
    timestamp: int


class Rejection(NamedTuple):
    """Why a message is not a tick."""

    reason: str


_SYMBOL = re.compile(r"[A-Z0-9._-]{1,32}")
_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?")
_PRICE_PLACES = 8
_PRICE_WHOLE_PLACES = 10
_LONGEST_EXPONENT = 18  # more digits than any text of a message's size can make up for
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
# What every well-behaved producer sends; everything else takes the thorough path to the same answer.
_CANONICAL = re.compile(
    rb'\{"symbol":"([A-Z0-9._-]{1,32})","price":(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,8}))?,'
    rb'"timestamp":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?'
    rb'(?:Z|\+00:00)"\}'
)
_FIELDS = ("symbol", "price", "timestamp")
# RFC 3339 also has a year 0000, which neither Delta's timestamps nor Python's have.
FIRST_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z
END_MS = 253_402_300_800_000  # 10000-01-01T00:00:00Z
_seconds: dict[str, int | None] = {}


def _epoch_milliseconds(second: str) -> int | None:
    """Milliseconds since the epoch of `YYYY-MM-DDTHH:MM:SS` read as UTC, or None where there is no such time."""
    try:
        return _seconds[second]
    except KeyError:
        pass
    milliseconds: int | None
    try:
        milliseconds = int(np.datetime64(second, "s").astype(np.int64)) * 1_000
    except ValueError:
        milliseconds = None
    if len(_seconds) > 100_000:
        _seconds.clear()
    _seconds[second] = milliseconds
    return milliseconds


def parse_timestamp(text: str) -> int | None:
    """Milliseconds since the epoch of an RFC 3339 timestamp (finer digits cut off), or None if it is not one."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    second, fraction, sign, hours, minutes = match.groups()
    milliseconds = _epoch_milliseconds(second)
    if milliseconds is None:
        return None
    if fraction:
        milliseconds += int(fraction[:3].ljust(3, "0"))
    if sign:
        offset = (int(hours) * 60 + int(minutes)) * 60_000
        milliseconds += offset if sign == "-" else -offset
    return milliseconds if FIRST_MS <= milliseconds < END_MS else None


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


def accept(value: bytes | None, record_timestamp: int) -> Tick | Rejection:
    """Decide whether a message on the price topic is a tick.

    `value` is the Kafka record's value, `record_timestamp` the record's own time in milliseconds.
    Every message gets one of the two answers; nothing raises.
    """
    if value is None:
        return Rejection("tombstone: no value")
    match = _CANONICAL.fullmatch(value)
    if match is not None:
        symbol, whole, fraction, second, second_fraction = match.groups()
        milliseconds = _epoch_milliseconds(second.decode())
        if milliseconds is None or milliseconds < FIRST_MS:
            return Rejection("timestamp: no such time in the years 0001 to 9999")
        if second_fraction:
            milliseconds += int(second_fraction[:3].ljust(3, b"0"))
        price = int(whole) * PRICE_SCALE + (int(fraction.ljust(8, b"0")) if fraction else 0)
        if price == 0:
            return Rejection("price: not a positive number exact as decimal(18,8)")
        return _not_ahead(Tick(symbol.decode(), price, milliseconds), record_timestamp)
    return _accept_thoroughly(value, record_timestamp)


def _not_ahead(tick: Tick, record_timestamp: int) -> Tick | Rejection:
    if tick.timestamp > record_timestamp + MAXIMUM_LEAD_MS:
        return Rejection("timestamp: more than 60 s ahead of the Kafka record")
    return tick


def _accept_thoroughly(value: bytes, record_timestamp: int) -> Tick | Rejection:
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
    symbol, timestamp_text = fields["symbol"].string, fields["timestamp"].string
    if symbol is None or not _SYMBOL.fullmatch(symbol):
        return Rejection("symbol: not a string of 1 to 32 of A-Z 0-9 . _ -")
    price_text = fields["price"].number or fields["price"].string
    price = None if price_text is None else parse_price(price_text)
    if price is None:
        return Rejection("price: not a positive number exact as decimal(18,8)")
    if timestamp_text is None:
        return Rejection("timestamp: not a string")
    milliseconds = parse_timestamp(timestamp_text)
    if milliseconds is None:
        return Rejection("timestamp: not RFC 3339 with T, seconds and an offset, in the years 0001 to 9999")
    return _not_ahead(Tick(symbol, price, milliseconds), record_timestamp)
