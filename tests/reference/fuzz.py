"""Seeded messages that try every way of being, or of only just not being, a tick.

Ticks in all spellings, near misses in grammar, damaged bytes, and times about the limits: what `acceptance` says of
each is not known beforehand. The same seed gives the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from tests.reference.acceptance import (
    DAY_MS,
    FIRST_MS,
    LAST_MS,
    MOST_AHEAD_MS,
    SCRIPTS,
    Tick,
    format_timestamp,
    milliseconds_of,
    right_key,
)
from tests.reference.spelling import MALFORMED, any_spelling, canonical, plain_number

_NOON = milliseconds_of("2025-05-08T12:00:00Z")
# What can be written, though it is no tick's time.
_YEAR_1 = -719_162 * DAY_MS
_YEAR_10000 = 2_932_897 * DAY_MS
_MOST_UNITS = 10**18 - 1
_SYMBOL_LETTERS = "ABCXYZ019._-"
_BORDERS = tuple(chr(border) for script in SCRIPTS for border in script)
_BEYOND_BORDERS = tuple(chr(border) for first, last in SCRIPTS for border in (first - 1, last + 1))
# Letters or digits to the Unicode tables of some version, or what normal forms would make one that may be.
_FOREIGN_LETTERS = (
    *("\u0391", "\u0412", "\uff21", "\u0661", "\u00c5", "\u1100\u1161", "\uff76", "\u3031", "\u30fc", "\u31f0"),
    *("\U00020000", "\U00031350", "\U0002ebf0", "\U0001b000", "\U0001b132", "\u9fff\u0300", "\ua7da", "\U00010d40"),
)
_RECORD_TIMES = (
    *(-1, None, -(10**16), 10**16, -(2**63), 2**63 - 1, FIRST_MS, FIRST_MS - 1, LAST_MS, LAST_MS + 1),
    *((2**63 - 1) // 1_000, (2**63 - 1) // 1_000 + 1, -(2**63) // 1_000, -(2**63) // 1_000 - 1),
    *(_YEAR_1, _YEAR_10000 - 1, _YEAR_10000),
)
_LETTERS = 'ab "\\/\0\n\x1f\x7f\u2028é\ud83d\U0001f600'
_NEAR_LETTERS = '0123456789-+.:eETZ ",{}\\\n\0A_\u0660\ufeff'
_KINDS = sorted(MALFORMED)
_LARGE_EVERY = 20_000
_BLANKS = ("",) * 12 + (" ", "\t", "\n", "\r", "\r\n ", "\n\n\t")


class Fuzzed(NamedTuple):
    """One message: its key and value, and its record's own timestamp in ms, None where it has none."""

    key: bytes | None
    value: bytes | None
    record_timestamp: int | None


def fuzz(seed: int, count: int) -> Iterator[Fuzzed]:
    """`count` messages; about half of them are ticks."""
    random = Random(f"fuzz {seed}")
    previous = b"{}"
    for number in range(count):
        tick = _tick(random)
        if number % _LARGE_EVERY == _LARGE_EVERY // 2:
            value: bytes | None = _large(tick, random)
        else:
            value = random.choices(_WAYS, _WEIGHTS)[0](tick, random)
        if value is not None and random.random() < 0.2:
            value = _damaged(value, previous, random)
        if value is not None and len(value) < 10_000:
            previous = value
        yield Fuzzed(_key(tick, value, random), value, _record_timestamp(tick, random))


def _key(tick: Tick, value: bytes | None, random: Random) -> bytes | None:
    """Mostly the one that is right."""
    key = right_key(value) or tick.symbol.encode()
    if random.random() < 0.95:
        return key
    return random.choice(
        (
            None,
            b"",
            key[:-1],
            key + b"A",
            key + b"\0",
            key.lower(),
            b'"' + key + b'"',
            b"\xff",
            key.decode().encode("utf-16"),
        )
    )


def _tick(random: Random) -> Tick:
    symbol = "".join(random.choices(_SYMBOL_LETTERS, k=random.choice((1, 2, 7, 7, 7, 31, 32))))
    if random.random() < 0.1:
        at = random.randrange(len(symbol))
        inserted = random.choice(_BORDERS) if random.random() < 0.8 else chr(random.randint(*random.choice(SCRIPTS)))
        symbol = symbol[:at] + inserted + symbol[at + 1 :]
    units = random.choice(
        (
            1,
            10**8,
            _MOST_UNITS,
            random.randint(1, 10**6),
            random.randint(1, _MOST_UNITS),
            random.randint(1, 10**5) * 10**8,
        )
    )
    moment = random.choice(
        (
            _NOON + random.randrange(DAY_MS),
            _NOON + random.randrange(DAY_MS),
            _NOON + random.randrange(DAY_MS),
            random.randrange(FIRST_MS - 2 * DAY_MS, FIRST_MS + 3 * DAY_MS),
            random.randrange(LAST_MS - 3 * DAY_MS, LAST_MS + 2 * DAY_MS),
            random.randrange(FIRST_MS, LAST_MS),
            random.randrange(FIRST_MS, LAST_MS) // 1000 * 1000,
            random.randrange(_YEAR_1, _YEAR_10000),
        )
    )
    return Tick(symbol, moment, units)


def _record_timestamp(tick: Tick, random: Random) -> int | None:
    """Mostly about the tick's own time; often just about the limit; now and then where none should be."""
    if random.random() < 0.03:
        return random.choice(_RECORD_TIMES)
    ahead = random.choice(
        (
            0,
            -1,
            MOST_AHEAD_MS - 1,
            MOST_AHEAD_MS,
            MOST_AHEAD_MS,
            MOST_AHEAD_MS + 1,
            -DAY_MS,
            random.randint(-9999, 9999),
        )
    )
    return tick.timestamp - ahead


# --- grammar ------------------------------------------------------------------------------------------------------


def _composed(tick: Tick, random: Random) -> bytes:
    """An object made of parts each of which may be odd."""
    members = [
        (_string("symbol", random), _odd_symbol(tick, random)),
        (_string("price", random), _odd_price(tick, random)),
        (_string("timestamp", random), _odd_time(tick, random)),
    ]
    for _ in range(random.choice((0, 0, 1, 2, 5))):
        members.append((_string(_extra_name(random), random), _json(random, random.choice((0, 1, 3)))))
    if random.random() < 0.05:
        members.pop(random.randrange(len(members)))
    if random.random() < 0.05:
        members.append(random.choice(members))
    random.shuffle(members)
    inside = ",".join(f"{_blank(random)}{a}{_blank(random)}:{_blank(random)}{b}{_blank(random)}" for a, b in members)
    return f"{_blank(random)}{{{inside}}}{_blank(random)}".encode("utf-8", "surrogatepass")


def _blank(random: Random) -> str:
    """Blanks between tokens, very seldom one that JSON does not have."""
    if random.random() < 0.002:
        return random.choice(("\v", "\f", "\u00a0", "\0", "\ufeff"))
    return random.choice(_BLANKS)


def _extra_name(random: Random) -> str:
    return random.choice(("x", "x", "", "Symbol", "price ", "timestamp\0", "prıce", "volume", "\U0001f600", "\\"))


def _string(text: str, random: Random) -> str:
    """A string literal, some of it escaped in any of the ways there are."""
    if random.random() < 0.7:
        return json.dumps(text, ensure_ascii=random.random() < 0.9)
    escaped, upper = random.getrandbits(64), random.getrandbits(1) == 1
    return '"' + "".join(_letter(letter, escaped >> at & 1, upper) for at, letter in enumerate(text)) + '"'


def _letter(letter: str, escaped: int, upper: bool) -> str:
    if not escaped and letter not in '"\\' and letter >= " ":
        return "\\/" if letter == "/" and upper else letter
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    units = units.upper() if upper else units
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _odd_symbol(tick: Tick, random: Random) -> str:
    if random.random() < 0.8:
        return _string(tick.symbol, random)
    odd = random.choice(
        (
            tick.symbol + "A",
            tick.symbol.lower(),
            tick.symbol + "\n",
            random.choice(_FOREIGN_LETTERS) + tick.symbol,
            tick.symbol[1:] + random.choice(_BEYOND_BORDERS),
            tick.symbol[1:] + random.choice(_BEYOND_BORDERS),
            tick.symbol + " ",
            "$gt",
            "\ud800",
            "Ａ",
        )
    )
    return random.choice((_string(odd, random), _json(random, 1)))


def _odd_price(tick: Tick, random: Random) -> str:
    number = _odd_number(tick, random)
    form = random.random()
    if form < 0.5:
        return number
    return _string(number, random) if form < 0.97 else _json(random, 1)


def _odd_number(tick: Tick, random: Random) -> str:
    """A spelling of the price: usually right, sometimes beyond a limit or not a number at all."""
    style = random.randrange(10)
    if style < 3:
        return plain_number(tick.units)
    if style < 7:
        digits, exponent = str(tick.units), -8
        zeros = random.choice((0, 0, 1, 5, 30))
        digits, exponent = digits + "0" * zeros, exponent - zeros
        point = random.randint(0, len(digits))
        whole, fraction = digits[:point] or "0", digits[point:]
        exponent += len(fraction)
        written = random.choice(("", "+")) + str(exponent) if exponent >= 0 else str(exponent)
        if random.random() < 0.2:
            sign = written[0] if written[0] in "+-" else ""
            written = sign + written.removeprefix(sign).rjust(random.choice((3, 19, 25, 5000)), "0")
        return whole + (f".{fraction}" if fraction else "") + (f"{random.choice('eE')}{written}" if exponent else "")
    if style == 7:
        return f"{random.choice(('', '', '-'))}{random.randint(0, 10**11)}.{random.randint(0, 10**9)}"
    if style == 8:
        return "".join(random.choices("0123456789+-.eE", k=random.randint(1, 12)))
    return random.choice(
        (
            "0",
            "-0",
            "0e5",
            "1e10",
            "9999999999.999999990",
            "1e-8",
            "1e-9",
            "10e-9",
            "9e9",
            "0.00000001",
            "1e99999999999999999999",
        )
    )


def _odd_time(tick: Tick, random: Random) -> str:
    offset = random.choice((0, 0, 0, 60, -60, 330, 1439, -1439, random.randint(-1439, 1439)))
    moment = tick.timestamp + offset * 60_000
    if not _YEAR_1 <= moment < _YEAR_10000:
        moment, offset = tick.timestamp, 0
    whole = format_timestamp(moment)[:19]
    fraction = f"{moment % 1000:03}{random.randrange(10**6):06}"[: random.randint(0, 9)]
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    text = whole + (f".{fraction}" if fraction else "") + (random.choice(("Z", zone)) if offset == 0 else zone)
    if random.random() < 0.25:
        text = _near_time(text, random)
    return _string(text, random) if random.random() < 0.98 else _json(random, 1)


def _near_time(text: str, random: Random) -> str:
    """The time with a figure or a mark changed: seconds 60, day 31, year 0000, a comma, a lower-case letter."""
    style = random.randrange(6)
    if style == 0:
        at = random.randrange(len(text))
        return text[:at] + random.choice("0123456789:-+.TZtz, ") + text[at + 1 :]
    if style == 1:
        place = random.choice((5, 8, 11, 14, 17))
        return (
            text[:place]
            + random.choice(("00", "12", "13", "23", "24", "29", "30", "31", "32", "59", "60", "61"))
            + text[place + 2 :]
        )
    if style == 2:
        return random.choice(("0000", "0001", "1969", "1970", "2000", "2024", "2261", "2262", "9999")) + text[4:]
    if style == 3:
        return text[:11] + random.choice(("23:59:60", "24:00:00", "23:59:59", "00:00:00")) + text[19:]
    if style == 4:
        return text[:19] + random.choice(
            (".", ".1234567890Z", "z", "", "+0000", "+24:00", "-00:00", "+23:60", "\u221200:00", ",5Z", "Z ")
        )
    return text[:5] + random.choice(("02-28", "02-29", "02-30", "04-31", "12-31", "01-01")) + text[10:]


def _json(random: Random, depth: int) -> str:
    """Any JSON value, now and then something that only looks like one."""
    style = random.randrange(12 if depth else 8)
    if style < 2:
        return _string("".join(random.choices(_LETTERS, k=random.randint(0, 6))), random)
    if style < 4:
        return _odd_number(Tick("A", 0, random.randint(1, _MOST_UNITS)), random)
    if style < 7:
        return random.choice(("true", "false", "null"))
    if style == 7:
        return random.choice(
            ("1E400", "-0.0e-0", "{}", "[]", "NaN", "-Infinity", "nul", "+1", ".5", "1.", "'a'", "", "[1,]")
        )
    values = [_json(random, depth - 1) for _ in range(random.randint(0, 3))]
    if style < 10:
        return "[" + f"{_blank(random)},{_blank(random)}".join(values) + _blank(random) + "]"
    return "{" + ",".join(f"{_string(_extra_name(random), random)}:{value}" for value in values) + "}"


def _nested(tick: Tick, random: Random) -> bytes:
    """An extra member nested about as deep as readers that call themselves can go, and deeper."""
    depth = random.choice((1, 50, 300, 990, 1_000, 1_024, 3_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('[0,{"":', "}]")))
    missing = random.choice((0, 0, 0, 1))
    return _with_extra(tick, opening * depth + "1" + closing * (depth - missing))


def _with_extra(tick: Tick, extra: str) -> bytes:
    return canonical(tick)[:-1] + f',"extra":{extra}}}'.encode()


def _large(tick: Tick, random: Random) -> bytes:
    """A message of up to a megabyte."""
    size = random.choice((100_000, 900_000))
    extra = random.choice(
        (
            lambda: '"' + "a" * size + '"',
            lambda: '"' + "\\u0041" * (size // 6) + '"',
            lambda: "[" * (size // 2) + "]" * (size // 2),
            lambda: "[" * size,
            lambda: "9" * size,
            lambda: "1" + "0" * size + f"e-{size}",
            lambda: "[" + "{}," * (size // 3) + "0]",
            lambda: '"' + "\\" * size,
        )
    )()
    return (
        _with_extra(tick, extra)
        if random.random() < 0.8
        else canonical(tick)[:-1].replace(b'"price":', b'"price":' + extra.encode())
    )


def _nearly_canonical(tick: Tick, random: Random) -> bytes:
    """As producers write it, or with one odd part, or with one letter more, less or changed."""
    canonical_parts = [f'"{tick.symbol}"', plain_number(tick.units), f'"{format_timestamp(tick.timestamp)}"']
    odd_parts = (_odd_symbol, _odd_price, _odd_time)
    for odd in random.sample(range(3), k=random.choice((0, 1, 1, 1, 2))):
        canonical_parts[odd] = odd_parts[odd](tick, random)
    symbol, price, timestamp = canonical_parts
    if not price.startswith('"') and random.random() < 0.4:
        price = f'"{price}"'
    blank = random.choice(("", " "))
    text = f'{{"symbol":{blank}{symbol},{blank}"price":{blank}{price},{blank}"timestamp":{blank}{timestamp}}}'
    if random.random() < 0.3:
        at = random.randrange(len(text) + 1)
        letter = random.choice(_NEAR_LETTERS)
        text = text[:at] + random.choice(("", letter, letter)) + text[at + random.choice((0, 1)) :]
    return text.encode("utf-8", "surrogatepass")


# --- bytes --------------------------------------------------------------------------------------------------------

_SPECIAL_BYTES = (
    *(b"\0", b"\xff", b"\x80", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8"),
    *(b"\n", b"\r", b"\x1f", b"\x7f", b"\xc2\x85", b" ", b"0", b"\\", b'"', b"\\u0000", b"\\ud800"),
    *(b"{", b"}", b"[", b"]", b",", b":"),
)


def _damaged(value: bytes, other: bytes, random: Random) -> bytes:
    """The value with one to three places changed, or cut and put together with another."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randint(0, len(value))
        style = random.randrange(7)
        if style == 0 and value:
            at = min(at, len(value) - 1)
            value = value[:at] + bytes((value[at] ^ 1 << random.randrange(8),)) + value[at + 1 :]
        elif style == 1:
            value = value[:at] + random.choice(_SPECIAL_BYTES) + value[at:]
        elif style == 2:
            value = value[:at] + value[at + random.choice((1, 1, 2, 8)) :]
        elif style == 3:
            value = value[:at]
        elif style == 4:
            value = value[:at] + other[random.randint(0, len(other)) :]
        elif style == 5:
            value = value[:at] + value[max(0, at - random.randint(1, 9)) : at] + value[at:]
        else:
            value = random.choice(
                (b"\xef\xbb\xbf" + value, value + b"\0", value + b" ", b"[" + value + b"]", value + value)
            )
    return value


def _bytes(tick: Tick, random: Random) -> bytes:
    return random.choice(
        (
            random.randbytes(random.randint(0, 60)),
            bytes(random.choices(b'{}[]",:0123456789.eE+-\\ utrfalsn', k=random.randint(0, 40))),
            canonical(tick).decode().encode("utf-16"),
        )
    )


def _malformed(tick: Tick, random: Random) -> bytes:
    return MALFORMED[random.choice(_KINDS)](tick)


def _spelled(tick: Tick, random: Random) -> bytes:
    # With an offset, too, the time has to be one that can be written.
    written = min(max(tick.timestamp, _YEAR_1 + DAY_MS), _YEAR_10000 - 1 - DAY_MS)
    return any_spelling(tick._replace(timestamp=written), random)


def _canonical(tick: Tick, _: Random) -> bytes:
    return canonical(tick)


def _tombstone(*_: object) -> None:
    return None


_Way = Callable[[Tick, Random], bytes | None]
_SHARES: tuple[tuple[_Way, float], ...] = (
    (_canonical, 20),
    (_spelled, 25),
    (_composed, 40),
    (_nearly_canonical, 40),
    (_malformed, 10),
    (_bytes, 3),
    (_nested, 0.3),
    (_tombstone, 0.5),
)
_WAYS = [way for way, _ in _SHARES]
_WEIGHTS = [weight for _, weight in _SHARES]
