"""Binance's public archive (https://github.com/binance/binance-public-data): rows of CSV files as ticks.

Trades and aggregated trades are ticks at their time; a candlestick (kline) is one at its close time, with the price
that it closed at. Files of spot markets and of futures differ in the flags at the end of a row; some begin with the
columns' names. Times are milliseconds, for spot markets microseconds from 2025 on.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

_PRICE = rb"((?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
_TIME = rb"([0-9]{13}|[0-9]{16})"
_DECIMAL = rb"[-+0-9.eE]+"
_FLAG = rb"(?:[Tt]rue|[Ff]alse|TRUE|FALSE)"
_MILLISECOND_DIGITS = 13
# BTCUSDT-trades-2025-01-01.zip, BTCUSD_PERP-aggTrades-2024-12.csv, ETHBTC-1m-2024-12-31 (1).csv.gz
_NAME = re.compile(r"([^-/]+)-(?:trades|aggTrades|[0-9]+(?:s|m|h|d|w|mo|M))-[0-9]{4}-[0-9]{2}", re.IGNORECASE)


class Layout(NamedTuple):
    """One kind of file: its rows, whose groups are price and time, and where these two stand among the columns."""

    name: str
    row: re.Pattern[bytes]
    price_column: int
    time_column: int


def _layout(name: str, columns: bytes) -> Layout:
    """`columns` describes a row by a letter each: Price, Time, decimal, integer, flag, optional flag."""
    forms = {"P": _PRICE, "T": _TIME, "d": _DECIMAL, "i": rb"[0-9]+", "f": _FLAG}
    parts = [b"(?:,%b)?" % _FLAG if column == "o" else b",%b" % forms[column] for column in columns.decode()]
    row = re.compile(b"".join(parts).removeprefix(b",") + rb"\r?")
    return Layout(name, row, columns.index(b"P"), columns.index(b"T"))


_LAYOUTS = (
    _layout("trades", b"iPddTfo"),
    _layout("aggregated trades", b"iPdiiTfo"),
    _layout("candlesticks", b"idddPdTdiddd"),
)
_PRICE_NAMES = {"price", "close"}
_TIME_NAMES = {"time", "timestamp", "transacttime", "closetime"}


def symbol_of(name: str) -> str | None:
    """The symbol that a file's name begins with, None for a name of another form."""
    match = _NAME.match(name)
    return match[1].upper() if match else None


def layout_of(rows: Sequence[bytes]) -> Layout | None:
    """What kind of file begins with these rows, None for any other."""
    for layout in _LAYOUTS:
        if any(layout.row.fullmatch(row) for row in rows) or (rows and is_header(layout, rows[0])):
            return layout
    return None


def is_header(layout: Layout, row: bytes) -> bool:
    """Whether a row is the names of the columns."""
    names = [name.strip(' "').lower().replace("_", "").replace(" ", "") for name in row.decode("latin-1").split(",")]
    if len(names) <= max(layout.price_column, layout.time_column):
        return False
    return names[layout.price_column] in _PRICE_NAMES and names[layout.time_column] in _TIME_NAMES


def tick_of(layout: Layout, symbol: str, row: bytes) -> bytes:
    """The message of a row, its time cut to milliseconds; a row of another form comes back as it is."""
    match = layout.row.fullmatch(row)
    if match is None:
        return row
    price, time = match.groups()
    milliseconds = int(time[:_MILLISECOND_DIGITS])
    second, millisecond = divmod(milliseconds, 1_000)
    return b'{"symbol":"%b","price":%b,"timestamp":"%b.%03dZ"}' % (symbol.encode(), price, _second(second), millisecond)


@functools.lru_cache(10_000)
def _second(second: int) -> bytes:
    return datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
