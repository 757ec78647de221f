"""How a message can be written: legal spellings of a tick, and named kinds of messages that are not ticks.

Only what the rules decide beyond doubt is used here. Pure functions of a tick and a random generator; no line ever
holds a line feed or a carriage return, so each fits one line of a JSON lines file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from tests.reference.acceptance import DECIMALS, UNITS_PER_PRICE, Tick, format_timestamp

_FAR_FUTURE = "2260-01-01T00:00:00Z"
_EXTRAS = (
    '"source":"replay"',
    '"volume":12.5',
    '"nested":{"symbol":"OTHER","price":-1,"timestamp":null}',
    '"list":[[],{},[{"price":[]}],true,false,null]',
    '"huge":1e400',
    '"tiny":-1.5E-4000',
    '"long":123456789012345678901234567890',
    '"Price":"see price"',
    '"text":"quote \\" solidus \\/ backslash \\\\ smile \\ud83d\\ude00 nul \\u0000"',
    '"separators":"\u2028\u2029\u0085"',
    '"greek":"τιμή","":0',
    '"same":1,"same":2',
)


def canonical(tick: Tick) -> bytes:
    """As the producer writes it."""
    return _object(f'"{tick.symbol}"', plain_number(tick.units), f'"{_with_decimals(tick.timestamp, 6)}+00:00"')


def plain_number(units: int) -> str:
    """The shortest decimal without an exponent."""
    whole, fraction = divmod(units, UNITS_PER_PRICE)
    digits = str(fraction).rjust(DECIMALS, "0").rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _object(symbol: str, price: str, timestamp: str) -> bytes:
    return f'{{"symbol":{symbol},"price":{price},"timestamp":{timestamp}}}'.encode()


def _with_decimals(moment: int, decimals: int, below: int = 0) -> str:
    """The time without a zone, cut or filled up to `decimals`; `below` fills the six digits below a millisecond."""
    whole = format_timestamp(moment)[:-1]
    return whole[:19] if decimals == 0 else (whole + f"{below:06}")[: 20 + decimals]


def any_spelling(tick: Tick, random: Random) -> bytes:
    """One of very many legal ways to write the tick."""
    names = {name: f'"{name}"' for name in ("symbol", "price", "timestamp")}
    if random.random() < 0.15:
        name = random.choice(sorted(names))
        names[name] = _escaped(name, random)
    symbol = _escaped(tick.symbol, random) if random.random() < 0.2 else f'"{tick.symbol}"'
    parts = [
        (names["symbol"], symbol),
        (names["price"], _any_price(tick.units, random)),
        (names["timestamp"], f'"{_any_time(tick.timestamp, random)}"'),
    ]
    random.shuffle(parts)

    def blank() -> str:
        return random.choice(("", "", " ", "  ", "\t"))

    roomy = random.random() < 0.3
    members = [f"{blank()}{a}{blank()}:{blank()}{b}{blank()}" if roomy else f"{a}:{b}" for a, b in parts]
    for extra in random.sample(_EXTRAS, random.choice((0, 0, 1, 2))):
        members.insert(random.randrange(len(members) + 1), extra)
    text = "{" + ",".join(members) + "}"
    return (f"{blank()}{text}{blank()}" if roomy else text).encode()


def _escaped(text: str, random: Random) -> str:
    return '"' + "".join(f"\\u{ord(letter):04x}" if random.random() < 0.4 else letter for letter in text) + '"'


def _any_price(units: int, random: Random) -> str:
    number = plain_number(units)
    style = random.randrange(6)
    if style == 1:
        whole, _, fraction = number.partition(".")
        number = f"{whole}.{fraction.ljust(random.randint(max(1, len(fraction)), DECIMALS), '0')}"
    elif style == 2:
        number = f"{units}e-8"
    elif style == 3:
        digits = str(units)
        number = f"{digits[0]}.{digits[1:] or '0'}{random.choice('eE')}{len(digits) - 1 - DECIMALS:+}"
    elif style == 4:
        number = f"0.{units}E{len(str(units)) - DECIMALS:03}"
    return f'"{number}"' if random.random() < 0.4 else number


def _any_time(moment: int, random: Random) -> str:
    below = random.choice((0, 1, 999_999, random.randrange(1_000_000)))
    millisecond = moment % 1000
    needed = 0 if millisecond == 0 else len(f"{millisecond:03}".rstrip("0"))
    decimals = random.choice((needed, 3, 6, 9, random.randint(needed, 9)))
    zone, minutes = random.choice((("Z", 0), ("+00:00", 0), ("-00:00", 0), ("+02:00", 120), ("-05:30", -330)))
    return _with_decimals(moment + minutes * 60_000, decimals, below) + zone


def _swap(member: str, json_text: str) -> Callable[[Tick], bytes]:
    """Makes the tick's object with one member's value written as `json_text`; `*` stands for what belonged there."""

    def write(tick: Tick) -> bytes:
        right = {
            "symbol": tick.symbol,
            "price": plain_number(tick.units),
            "timestamp": f"{_with_decimals(tick.timestamp, 3)}Z",
        }
        quoted = {"symbol": f'"{right["symbol"]}"', "price": right["price"], "timestamp": f'"{right["timestamp"]}"'}
        quoted[member] = json_text.replace("*", right[member])
        return _object(quoted["symbol"], quoted["price"], quoted["timestamp"])

    return write


def _time(change: Callable[[str], str]) -> Callable[[Tick], bytes]:
    """Makes the tick's object with the timestamp `YYYY-MM-DDTHH:MM:SS.mmm` changed to any text."""
    return lambda tick: _object(
        f'"{tick.symbol}"', plain_number(tick.units), json.dumps(change(_with_decimals(tick.timestamp, 3)))
    )


def _text(change: Callable[[str], str]) -> Callable[[Tick], bytes]:
    return lambda tick: change(canonical(tick).decode()).encode()


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Tick], bytes]:
    return lambda tick: change(canonical(tick))


MALFORMED: dict[str, Callable[[Tick], bytes]] = {
    # Not one strict JSON object in UTF-8.
    "truncated": _text(lambda text: text[:-9]),
    "plain words": _text(lambda _: "upstream connect error or disconnect/reset before headers"),
    "array of one": _text(lambda text: f"[{text}]"),
    "a string": _text(lambda text: json.dumps(text)),
    "null": _text(lambda _: "null"),
    "empty object": _text(lambda _: "{}"),
    "two objects": _text(lambda text: text + text),
    "trailing bracket": _text(lambda text: text + "}"),
    "trailing comma": _text(lambda text: text[:-1] + ",}"),
    "comment": _text(lambda text: text + " // last"),
    "single quotes": _text(lambda text: text.replace('"', "'")),
    "bare name": _text(lambda text: text.replace('"price"', "price")),
    "missing comma": _text(lambda text: text.replace(',"price"', ' "price"')),
    "extra member NaN": _text(lambda text: text[:-1] + ',"volume":NaN}'),
    "extra member truncated number": _text(lambda text: text[:-1] + ',"volume":1.}'),
    "extra member open array": _text(lambda text: text[:-1] + ',"list":[1,2}'),
    "raw tab in a string": _text(lambda text: text[:-1] + ',"note":"a\tb"}'),
    "unknown escape": _text(lambda text: text[:-1] + ',"note":"\\x41"}'),
    "short unicode escape": _text(lambda text: text[:-1] + ',"note":"\\u12"}'),
    "no-break space between": _text(lambda text: text.replace(":", ":\u00a0", 1)),
    "NUL at the end": _text(lambda text: text + "\0"),
    "not UTF-8": _bytes(lambda line: line[:-1] + b',"note":"caf\xe9"}'),
    "overlong UTF-8": _bytes(lambda line: line[:-1] + b',"note":"\xc0\xaf"}'),
    "surrogate in UTF-8": _bytes(lambda line: line[:-1] + b',"note":"\xed\xa0\x80"}'),
    "UTF-16": _bytes(lambda line: line.decode().encode("utf-16-be")),
    "byte order mark": _bytes(lambda line: b"\xef\xbb\xbf" + line),
    # Members missing, repeated or named differently.
    "no symbol": _text(lambda text: "{" + text[text.index('"price"') :]),
    "no price": lambda tick: f'{{"symbol":"{tick.symbol}","timestamp":"{format_timestamp(tick.timestamp)}"}}'.encode(),
    "no timestamp": _text(lambda text: text[: text.index(',"timestamp"')] + "}"),
    "price capitalised": _text(lambda text: text.replace('"price"', '"Price"')),
    "price twice": _text(lambda text: text.replace('"price"', '"price":1,"price"')),
    "price twice, equal": _text(
        lambda text: text[:-1] + "," + text[text.index('"price"') : text.index(',"time')] + "}"
    ),
    "symbol twice, once escaped": _text(lambda text: text[:-1] + ',"\\u0073ymbol":"BTCUSDT"}'),
    "timestamp twice": _text(lambda text: text[:-1] + "," + text[text.index('"timestamp"') :]),
    "members one level down": _text(lambda text: f'{{"data":{text}}}'),
    # The symbol.
    "symbol empty": _swap("symbol", '""'),
    "symbol too long": _swap("symbol", '"' + "A" * 33 + '"'),
    "symbol in lower case": _swap("symbol", '"btcusdt"'),
    "symbol with a space": _swap("symbol", '"* "'),
    "symbol with a line feed": _swap("symbol", '"*\\n"'),
    "symbol with a slash": _swap("symbol", '"BTC/USDT"'),
    "symbol with the mark before hiragana": _swap("symbol", '"*\u3040"'),
    "symbol with the mark after hiragana": _swap("symbol", '"*\u3097"'),
    "symbol with a prolonged sound mark": _swap("symbol", '"*\u30fc"'),
    "symbol with a hexagram": _swap("symbol", '"*\u4dc0"'),
    "symbol with a Yi syllable": _swap("symbol", '"*\ua000"'),
    "symbol with a Hangul letter": _swap("symbol", '"*\u1100"'),
    "symbol with what follows Hangul": _swap("symbol", '"*\ud7a4"'),
    "symbol with half-width katakana": _swap("symbol", '"*\uff76"'),
    "symbol with Han beyond the first plane": _swap("symbol", '"*\U00020000"'),
    "symbol with half a surrogate pair": _swap("symbol", '"*\\ud83d"'),
    "symbol with a Cyrillic letter": _swap("symbol", '"\u0412TCUSDT"'),
    "symbol with a full-width letter": _swap("symbol", '"\uff22TCUSDT"'),
    "symbol null": _swap("symbol", "null"),
    "symbol a number": _swap("symbol", "1000"),
    "symbol in a list": _swap("symbol", '["*"]'),
    # The price.
    "price null": _swap("price", "null"),
    "price true": _swap("price", "true"),
    "price in a list": _swap("price", "[*]"),
    "price an object": _swap("price", '{"value":*}'),
    "price zero": _swap("price", "0"),
    "price minus zero": _swap("price", "-0.0"),
    "price zero as a string": _swap("price", '"0.00000000"'),
    "price negative": _swap("price", "-*"),
    "price negative as a string": _swap("price", '"-*"'),
    "price NaN": _swap("price", "NaN"),
    "price NaN as a string": _swap("price", '"NaN"'),
    "price Infinity": _swap("price", "Infinity"),
    "price Infinity as a string": _swap("price", '"Infinity"'),
    "price 1e10": _swap("price", "1e10"),
    "price 10000000000 as a string": _swap("price", '"10000000000"'),
    "price with 9 decimals": _swap("price", "0.000000001"),
    "price with 9 decimals, rounding up": _swap("price", '"61837.999999999"'),
    "price 1e-9": _swap("price", "1e-9"),
    "price with an enormous exponent": _swap("price", "1e999999999"),
    "price with a tiny exponent": _swap("price", '"1e-999999999"'),
    "price with a long exponent": _swap("price", "1e" + "9" * 5000),
    "price with a plus": _swap("price", "+*"),
    "price with a plus, as a string": _swap("price", '"+*"'),
    "price with a leading zero": _swap("price", "0*1"),
    "price with a leading zero, as a string": _swap("price", '"01.5"'),
    "price without whole digits": _swap("price", ".5"),
    "price without whole digits, as a string": _swap("price", '".5"'),
    "price without decimals after the point": _swap("price", "61837."),
    "price without decimals after the point, as a string": _swap("price", '"61837."'),
    "price without exponent digits": _swap("price", "1e"),
    "price empty": _swap("price", '""'),
    "price with a thousands separator": _swap("price", '"61,837.63"'),
    "price with a decimal comma": _swap("price", '"61837,63"'),
    "price with an underscore": _swap("price", '"61_837"'),
    "price hexadecimal": _swap("price", '"0x10"'),
    "price with a currency": _swap("price", '"* USDT"'),
    "price with a blank before": _swap("price", '" *"'),
    "price with a line feed after": _swap("price", '"*\\n"'),
    "price in Arabic-Indic digits": _swap("price", '"\u0661\u0662"'),
    "price a Java double": _swap("price", '"1.5d"'),
    # The timestamp.
    "timestamp null": _swap("timestamp", "null"),
    "timestamp in epoch ms": _swap("timestamp", "1715141558300"),
    "timestamp in epoch ms as a string": _swap("timestamp", '"1715141558300"'),
    "timestamp empty": _swap("timestamp", '""'),
    "timestamp with a space for T": _time(lambda time: time.replace("T", " ") + "Z"),
    "timestamp with a lower-case t": _time(lambda time: time.replace("T", "t") + "Z"),
    "timestamp with a lower-case z": _time(lambda time: time + "z"),
    "timestamp without a zone": _time(lambda time: time),
    "timestamp with a zone name": _time(lambda time: time + "[UTC]"),
    "timestamp with a zone and a name": _time(lambda time: time + "Z[UTC]"),
    "timestamp without seconds": _time(lambda time: time[:16] + "Z"),
    "timestamp without a time": _time(lambda time: time[:10]),
    "timestamp in the basic form": _time(lambda time: time[:19].replace("-", "").replace(":", "") + "Z"),
    "timestamp as a week date": _time(lambda time: time[:4] + "-W19-4" + time[10:] + "Z"),
    "timestamp with 10 decimals": _time(lambda time: time + "0000000Z"),
    "timestamp with a point and no decimals": _time(lambda time: time[:20] + "Z"),
    "timestamp with a decimal comma": _time(lambda time: time.replace(".", ",") + "Z"),
    "timestamp with an offset without a colon": _time(lambda time: time + "+0000"),
    "timestamp with an offset of hours only": _time(lambda time: time + "+00"),
    "timestamp with an offset of 24 hours": _time(lambda time: time + "+24:00"),
    "timestamp with an offset of 60 minutes": _time(lambda time: time + "+01:60"),
    "timestamp with a true minus sign": _time(lambda time: time + "\u221200:00"),
    "timestamp with seconds in the offset": _time(lambda time: time + "+00:00:00"),
    "timestamp in month 13": _time(lambda time: time[:5] + "13" + time[7:] + "Z"),
    "timestamp on 30 February": _time(lambda time: time[:5] + "02-30" + time[10:] + "Z"),
    "timestamp on 29 February of a common year": _time(lambda time: "2023-02-29" + time[10:] + "Z"),
    "timestamp on day 0": _time(lambda time: time[:8] + "00" + time[10:] + "Z"),
    "timestamp at hour 24": _time(lambda time: time[:11] + "24:00:00.000Z"),
    "timestamp at minute 60": _time(lambda time: time[:14] + "60:00.000Z"),
    "timestamp at second 61": _time(lambda time: time[:17] + "61.000Z"),
    "timestamp with a one-digit month": _time(lambda time: time[:5] + "5" + time[7:] + "Z"),
    "timestamp with a five-digit year": _time(lambda time: "0" + time + "Z"),
    "timestamp with a blank before": _time(lambda time: " " + time + "Z"),
    "timestamp with a line feed after": _time(lambda time: time + "Z\n"),
    "timestamp in Arabic-Indic digits": _time(lambda time: "\u0662\u0660\u0662\u0664" + time[4:] + "Z"),
    "timestamp of 1969": _time(lambda time: "1969-12-31T23:59:59.999Z"),
    "timestamp of 1969 by its offset": _time(lambda time: "1970-01-01T00:00:00.000+00:01"),
    "timestamp of 2262": _time(lambda time: "2262-01-01T00:00:00.000Z"),
    "timestamp of 2262 by its offset": _time(lambda time: "2261-12-31T23:59:59.999-00:01"),
    "timestamp of the year 0": _time(lambda time: "0000" + time[4:] + "Z"),
    "timestamp of the year 9999": _time(lambda time: "9999" + time[4:] + "Z"),
    "timestamp from the future": _swap("timestamp", f'"{_FAR_FUTURE}"'),
}
"""Name of the kind -> how to write it for a given tick."""
