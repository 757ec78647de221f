"""The outputs of a faultless system, rounded once, correctly: the comparison must find nothing wrong with them.

For tests of the comparison and of its readers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from bson import DatetimeMS

from tests.reference.acceptance import DAY_MS, DECIMALS, UNITS_PER_PRICE, format_timestamp
from tests.reference.model import INPUT_TOPIC, WINDOW_NAMES, Expected, Key, Message, WindowStats
from tests.reference.snapshot import (
    COLLECTIONS,
    HIGHER_TOPIC,
    LOWER_TOPIC,
    MOVING_TOPIC,
    ZSCORE_TOPIC,
    Collection,
    Record,
    Snapshot,
    Table,
)

_ROOT_BITS = 2**200
"""Roots are taken to 1/2²⁰⁰ of a unit before the one rounding to a double."""

STATS_TYPE = "array<struct<window:string,avg_price:double,std_price:double,count:long>>"
ZSCORES_TYPE = "array<struct<window:string,zscore_price:double>>"
_COORDINATE_TYPES = {"topic": "string", "partition": "integer", "offset": "long", "ingested_at": "timestamp"}
SCHEMAS: dict[str, dict[str, str]] = {
    "prices": {"symbol": "string", "price": "decimal(18,8)", "timestamp": "timestamp"} | _COORDINATE_TYPES,
    "rejects": {"raw": "binary", "reason": "string"} | _COORDINATE_TYPES,
    "moving_stats": {"symbol": "string", "timestamp": "timestamp", "stats": STATS_TYPE},
    "zscores": {"symbol": "string", "timestamp": "timestamp", "z_scores": ZSCORES_TYPE},
    "higher": {"symbol": "string", "timestamp": "timestamp", "higher_window": "double"},
    "lower": {"symbol": "string", "timestamp": "timestamp", "lower_window": "double"},
}
"""Column types of each table, `date` aside."""


def average(stats: WindowStats) -> float:
    """The mean price as the nearest double."""
    return float(Fraction(stats.total, stats.size * UNITS_PER_PRICE))


def deviation(stats: WindowStats) -> float | None:
    """The sample standard deviation as the nearest double; None below two prices."""
    if stats.size < 2:
        return None
    return float(_root(Fraction(stats.spread, stats.size * (stats.size - 1))) / UNITS_PER_PRICE)


def zscore(units: int, stats: WindowStats) -> float | None:
    """The z-score as the nearest double; None when the deviation is None or 0."""
    if stats.spread == 0:
        return None
    distance = stats.size * units - stats.total
    return float(distance / _root(Fraction(stats.size * stats.spread, stats.size - 1)))


def _root(number: Fraction) -> Fraction:
    return Fraction(math.isqrt(number.numerator * _ROOT_BITS**2 // number.denominator), _ROOT_BITS)


def snapshot(messages: Sequence[Message], expected: Expected) -> Snapshot:
    """A whole system that did everything right for these messages."""
    stats = {key: _stats_rows(windows) for key, windows in expected.stats.items()}
    scores = {key: _score_rows(expected.units[key], windows) for key, windows in expected.stats.items()}
    higher = {key: rise / 1000 for key, rise in expected.higher.items()}
    lower = {key: rise / 1000 for key, rise in expected.lower.items()}
    return Snapshot(
        messages=list(messages),
        topics={
            MOVING_TOPIC: list(_records("stats", stats)),
            ZSCORE_TOPIC: list(_records("z_scores", scores)),
            HIGHER_TOPIC: list(_records("higher_window", higher)),
            LOWER_TOPIC: list(_records("lower_window", lower)),
        },
        tables={
            "prices": _prices(expected, messages),
            "rejects": _rejects(expected),
            "moving_stats": _results("moving_stats", "stats", stats),
            "zscores": _results("zscores", "z_scores", scores),
            "higher": _results("higher", "higher_window", higher),
            "lower": _results("lower", "lower_window", lower),
        },
        collections={window: _collection(window, scores) for window in WINDOW_NAMES},
    )


def _stats_rows(windows: Sequence[WindowStats]) -> list[dict[str, Any]]:
    return [
        {"window": name, "avg_price": average(one), "std_price": deviation(one), "count": one.size}
        for name, one in zip(WINDOW_NAMES, windows, strict=True)
    ]


def _score_rows(units: int, windows: Sequence[WindowStats]) -> list[dict[str, Any]]:
    return [
        {"window": name, "zscore_price": zscore(units, one)} for name, one in zip(WINDOW_NAMES, windows, strict=True)
    ]


def _records(field: str, results: Mapping[Key, Any]) -> Iterator[Record]:
    for offset, ((symbol, time), result) in enumerate(results.items()):
        value = {"timestamp": format_timestamp(time), "symbol": symbol, field: result}
        yield Record(0, offset, symbol.encode(), json.dumps(value).encode())


def _table(name: str, columns: dict[str, list[Any]], days: list[int]) -> Table:
    return Table(SCHEMAS[name] | {"date": "date"}, ["date"], columns | {"date": days})


def _prices(expected: Expected, messages: Sequence[Message]) -> Table:
    arrival = {(message.partition, message.offset): message.timestamp for message in messages}
    ticks = expected.prices.values()
    columns: dict[str, list[Any]] = {
        "symbol": [tick.symbol for tick in ticks],
        "price": [Decimal(tick.units).scaleb(-DECIMALS) for tick in ticks],
        "timestamp": [tick.timestamp * 1000 for tick in ticks],
        "topic": [INPUT_TOPIC] * len(ticks),
        "partition": [partition for partition, _ in expected.prices],
        "offset": [offset for _, offset in expected.prices],
        "ingested_at": [arrival[coordinates] * 1000 for coordinates in expected.prices],
    }
    return _table("prices", columns, [tick.timestamp // DAY_MS for tick in ticks])


def _rejects(expected: Expected) -> Table:
    rejects = expected.rejects.values()
    columns: dict[str, list[Any]] = {
        "raw": [reject.message.value for reject in rejects],
        "reason": [reject.reason for reject in rejects],
        "topic": [INPUT_TOPIC] * len(rejects),
        "partition": [partition for partition, _ in expected.rejects],
        "offset": [offset for _, offset in expected.rejects],
        "ingested_at": [reject.message.timestamp * 1000 for reject in rejects],
    }
    return _table("rejects", columns, [reject.message.timestamp // DAY_MS for reject in rejects])


def _results(name: str, field: str, results: Mapping[Key, Any]) -> Table:
    columns: dict[str, list[Any]] = {
        "symbol": [symbol for symbol, _ in results],
        "timestamp": [time * 1000 for _, time in results],
        field: list(results.values()),
    }
    return _table(name, columns, [time // DAY_MS for _, time in results])


def _collection(window: str, scores: Mapping[Key, list[dict[str, Any]]]) -> Collection:
    position = list(COLLECTIONS).index(window)
    documents = [
        {
            "_id": f"{symbol}|{format_timestamp(time)}",
            "timestamp": DatetimeMS(time),
            "symbol": symbol,
            "window": window,
            "zscore_price": rows[position]["zscore_price"],
        }
        for (symbol, time), rows in scores.items()
    ]
    return Collection(documents, [[("_id", 1)], [("symbol", 1), ("timestamp", 1)]])
