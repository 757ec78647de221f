"""Which messages of the input topic count as ticks, decided by reading the bytes one grammar rule at a time."""

from __future__ import annotations

from datetime import date, timedelta
from typing import NamedTuple

DECIMALS = 8
UNITS_PER_PRICE: int = 10**DECIMALS
WHOLE_DIGITS = 10
MOST_AHEAD_MS = 60_000
DAY_MS = 86_400_000

_REQUIRED = ("symbol", "price", "timestamp")
_ASCII_OF_SYMBOLS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
SCRIPTS = ((0x3041, 0x3096), (0x30A1, 0x30FA), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
"""Code points from and to that a symbol may have beside ASCII: hiragana, katakana, Han (twice), Hangul."""
_DIGITS = frozenset("0123456789")
_BLANKS = frozenset(" \t\n\r")
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS = ("true", "false", "null")
_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Rejected(ValueError):
    """The message is not a tick; the text says why."""


class Tick(NamedTuple):
    """One observed price: `timestamp` in ms since the epoch, `units` = price in 1e-8."""

    symbol: str
    timestamp: int
    units: int


class Scalar(NamedTuple):
    """A top-level member's value: `kind` is string (decoded), number (as written), literal or container."""

    kind: str
    text: str


def accept(key: bytes | None, value: bytes | None, record_timestamp: int | None) -> Tick:
    """The tick in a message, or `Rejected`. `record_timestamp`: the Kafka record's own, in ms; None or -1 if absent."""
    tick = read(value)
    if record_timestamp is None or not FIRST_MS <= record_timestamp <= LAST_MS:
        raise Rejected("the record's own timestamp is absent or outside 1970 to 2261")
    if key is None or key.decode("utf-8", "replace") != tick.symbol or key != tick.symbol.encode():
        raise Rejected("the key is not the symbol")
    if tick.timestamp - record_timestamp > MOST_AHEAD_MS:
        raise Rejected("timestamp is more than 60 s ahead of the record's")
    return tick


def right_key(value: bytes | None) -> bytes | None:
    """The key that a message with this value must have; None where it is no tick with any."""
    try:
        return read(value).symbol.encode()
    except Rejected:
        return None


def read(value: bytes | None) -> Tick:
    """The tick in a message's value alone, or `Rejected`."""
    if value is None:
        raise Rejected("tombstone")
    try:
        text = value.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        raise Rejected(f"not UTF-8: {error}") from error
    members = _Reader(text).document()
    found: dict[str, Scalar] = {}
    for name, scalar in members:
        if name not in _REQUIRED:
            continue
        if name in found:
            raise Rejected(f"{name} occurs more than once")
        found[name] = scalar
    for name in _REQUIRED:
        if name not in found:
            raise Rejected(f"{name} is missing")
    symbol = _symbol(found["symbol"])
    units = _price(found["price"])
    return Tick(symbol, _timestamp(found["timestamp"]), units)


def _symbol(scalar: Scalar) -> str:
    if scalar.kind != "string":
        raise Rejected("symbol is not a string")
    if not 1 <= len(scalar.text) <= 32:
        raise Rejected("symbol must have 1 to 32 characters")
    for letter in scalar.text:
        if letter not in _ASCII_OF_SYMBOLS and not any(first <= ord(letter) <= last for first, last in SCRIPTS):
            raise Rejected("symbol has a character other than A-Z0-9._-, kana, Han and Hangul")
    return scalar.text


def _price(scalar: Scalar) -> int:
    if scalar.kind not in ("number", "string"):
        raise Rejected("price is neither a number nor a string")
    if scalar.kind == "string" and number_end(scalar.text, 0) != len(scalar.text):
        raise Rejected("price is a string that does not read as a number")
    return units_of(scalar.text)


def _timestamp(scalar: Scalar) -> int:
    if scalar.kind != "string":
        raise Rejected("timestamp is not a string")
    return milliseconds_of(scalar.text)


def units_of(number: str) -> int:
    """A JSON number's value in 1e-8, or `Rejected` unless it is > 0 and exact as decimal(18,8).

    The value counts, not the spelling: 1.500000000 is 1.5. No power of ten is computed before its size is known.
    """
    mantissa, _, exponent_text = number.replace("E", "e").partition("e")
    if mantissa.startswith("-"):
        raise Rejected("price must be greater than 0")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        raise Rejected("price must be greater than 0")
    significant = digits.rstrip("0")
    if len(significant) > WHOLE_DIGITS + DECIMALS:
        raise Rejected("price has more digits than decimal(18,8)")
    exponent_digits = exponent_text.lstrip("+-").lstrip("0")
    if len(exponent_digits) > 12:
        raise Rejected("price is out of the range of decimal(18,8)")
    exponent = int(exponent_digits or "0") * (-1 if exponent_text.startswith("-") else 1)
    last_place = exponent - len(fraction) + len(digits) - len(significant)
    if last_place < -DECIMALS:
        raise Rejected("price has more than 8 decimals")
    if len(significant) + last_place > WHOLE_DIGITS:
        raise Rejected("price is not below 1e10")
    return int(significant) * int(10 ** (last_place + DECIMALS))


def milliseconds_of(text: str) -> int:
    """An RFC 3339 date-time in ms since the epoch, finer digits cut off, or `Rejected`."""
    if len(text) < 20 or text[4] + text[7] + text[10] + text[13] + text[16] != "--T::":
        raise Rejected("timestamp is not of the form YYYY-MM-DDTHH:MM:SS")
    year, month, day = _figure(text[0:4]), _figure(text[5:7]), _figure(text[8:10])
    hour, minute, second = _figure(text[11:13]), _figure(text[14:16]), _figure(text[17:19])
    if hour > 23 or minute > 59 or second > 59:
        raise Rejected("timestamp has an impossible time of day")
    rest = text[19:]
    millisecond = 0
    if rest.startswith("."):
        length = 0
        while length + 1 < len(rest) and rest[length + 1] in _DIGITS:
            length += 1
        if not 1 <= length <= 9:
            raise Rejected("timestamp must have 1 to 9 decimals after the point")
        millisecond = int(rest[1 : 1 + min(length, 3)].ljust(3, "0"))
        rest = rest[1 + length :]
    moment = (_day_number(year, month, day) * 1440 + hour * 60 + minute - _zone_minutes(rest)) * 60_000
    moment += second * 1000 + millisecond
    if not FIRST_MS <= moment <= LAST_MS:
        raise Rejected("timestamp is outside the years 1970 to 2261 in UTC")
    return moment


def _zone_minutes(zone: str) -> int:
    if zone == "Z":
        return 0
    if len(zone) != 6 or zone[0] not in "+-" or zone[3] != ":":
        raise Rejected("timestamp must end in Z or ±HH:MM")
    hours, minutes = _figure(zone[1:3]), _figure(zone[4:6])
    if hours > 23 or minutes > 59:
        raise Rejected("timestamp has an impossible offset")
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)


def _figure(text: str) -> int:
    if not _DIGITS.issuperset(text):
        raise Rejected("timestamp has something other than a digit where a digit belongs")
    return int(text)


def _day_number(year: int, month: int, day: int) -> int:
    try:
        return date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError as error:
        raise Rejected(f"timestamp has an impossible date: {error}") from error


FIRST_MS = 0
LAST_MS = (_day_number(2261, 12, 31) + 1) * DAY_MS - 1


def format_timestamp(moment: int) -> str:
    """ms since the epoch as published: 2025-05-08T13:06:00.000Z."""
    days, rest = divmod(moment, DAY_MS)
    day = date.fromordinal(days + _EPOCH_DAY)
    clock, millisecond = divmod(rest, 1000)
    time = str(timedelta(seconds=clock)).rjust(8, "0")
    return f"{day.year:04}-{day.month:02}-{day.day:02}T{time}.{millisecond:03}Z"


def number_end(text: str, start: int) -> int:
    """Where the JSON number that begins at `start` ends; -1 when none does."""
    length = len(text)
    at = start + 1 if text[start : start + 1] == "-" else start
    if text[at : at + 1] == "0":
        at += 1
    else:
        at, began = _after_digits(text, at, length), at
        if at == began:
            return -1
    if text[at : at + 1] == ".":
        at, began = _after_digits(text, at + 1, length), at + 1
        if at == began:
            return -1
    if text[at : at + 1] in ("e", "E"):
        at += 2 if text[at + 1 : at + 2] in ("+", "-") else 1
        at, began = _after_digits(text, at, length), at
        if at == began:
            return -1
    return at


def _after_digits(text: str, at: int, length: int) -> int:
    while at < length and text[at] in _DIGITS:
        at += 1
    return at


class _Reader:
    """Reads one JSON document. Nesting is kept in a list, so depth is limited by the message's size alone."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> list[tuple[str, Scalar]]:
        """The members of the one top-level object, in order, repeated names included."""
        self._blanks()
        if self._next() != "{":
            raise Rejected("not a JSON object")
        members: list[tuple[str, Scalar]] = []
        self.at += 1
        self._blanks()
        if self._next() == "}":
            self.at += 1
        else:
            while True:
                name = self._name()
                members.append((name, self._value()))
                self._blanks()
                mark = self._next()
                self.at += 1
                if mark == "}":
                    break
                if mark != ",":
                    raise self._bad("a comma or } is missing")
                self._blanks()
        self._blanks()
        if self.at != len(self.text):
            raise self._bad("something follows the object")
        return members

    def _bad(self, what: str) -> Rejected:
        return Rejected(f"not strict JSON: {what} at character {self.at}")

    def _next(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _BLANKS:
            self.at += 1

    def _name(self) -> str:
        name = self._string()
        self._blanks()
        if self._next() != ":":
            raise self._bad("a colon is missing")
        self.at += 1
        self._blanks()
        return name

    def _value(self) -> Scalar:
        if self._next() in ("{", "["):
            self._skip_container()
            return Scalar("container", "")
        return self._scalar()

    def _scalar(self) -> Scalar:
        first = self._next()
        if first == '"':
            return Scalar("string", self._string())
        for literal in _LITERALS:
            if self.text.startswith(literal, self.at):
                self.at += len(literal)
                return Scalar("literal", literal)
        end = number_end(self.text, self.at)
        if end < 0:
            raise self._bad("no value")
        start, self.at = self.at, end
        return Scalar("number", self.text[start:end])

    def _skip_container(self) -> None:
        open_marks: list[str] = []
        while True:
            mark = self._next()
            if mark in ("{", "["):
                self.at += 1
                self._blanks()
                if self._next() == ("}" if mark == "{" else "]"):
                    self.at += 1
                else:
                    open_marks.append(mark)
                    if mark == "{":
                        self._name()
                    continue
            else:
                self._scalar()
            # One value is complete: close what ends here, then go on to the next value of what is still open.
            while open_marks:
                self._blanks()
                mark = self._next()
                self.at += 1
                if mark == ",":
                    self._blanks()
                    if open_marks[-1] == "{":
                        self._name()
                    break
                if mark != ("}" if open_marks[-1] == "{" else "]"):
                    raise self._bad("a comma or a closing bracket is missing")
                open_marks.pop()
            if not open_marks:
                return

    def _string(self) -> str:
        if self._next() != '"':
            raise self._bad("a string is missing")
        self.at += 1
        parts: list[str] = []
        while True:
            quote = self.text.find('"', self.at)
            if quote < 0:
                raise self._bad("a string does not end")
            escape = self.text.find("\\", self.at, quote)
            stop = quote if escape < 0 else escape
            piece = self.text[self.at : stop]
            if piece and min(piece) < " ":
                raise self._bad("a control character stands unescaped in the string")
            parts.append(piece)
            self.at = stop + 1
            if escape < 0:
                return "".join(parts)
            parts.append(self._escaped())

    def _escaped(self) -> str:
        letter = self._next()
        self.at += 1
        if letter in _SHORT_ESCAPES:
            return _SHORT_ESCAPES[letter]
        if letter != "u":
            raise self._bad("an unknown escape")
        unit = self._four_hex()
        if 0xD800 <= unit < 0xDC00 and self.text.startswith("\\u", self.at):
            before = self.at
            self.at += 2
            low = self._four_hex()
            if 0xDC00 <= low < 0xE000:
                return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
            self.at = before
        return chr(unit)

    def _four_hex(self) -> int:
        digits = self.text[self.at : self.at + 4]
        if len(digits) != 4 or not frozenset("0123456789abcdefABCDEF").issuperset(digits):
            raise self._bad("\\u without four hexadecimal digits")
        self.at += 4
        return int(digits, 16)
