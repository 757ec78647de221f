"""From what a store holds to comparable values by name, with the faults of form: fields, types, keys, dates, order.

Topics must hold strict JSON with exactly the promised members, tables the promised columns, MongoDB the promised
documents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from bson import DatetimeMS

from tests.reference.acceptance import DAY_MS, UNITS_PER_PRICE, Rejected, Tick, format_timestamp, milliseconds_of
from tests.reference.model import INPUT_TOPIC, WINDOW_NAMES
from tests.reference.report import Found, brief, shown
from tests.reference.snapshot import Collection, Record, Table

_WHOLE_NUMBERS = ("integer", "long")


class Malformed(ValueError):
    """Something that is there does not have the promised form; the text says what."""


def strict_json(value: bytes | None) -> Any:
    """A message's value as strict JSON: UTF-8, no NaN or Infinity, no name twice, no number beyond a double."""
    if value is None:
        raise Malformed("a tombstone")
    try:
        return json.loads(
            value.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not strict JSON: {error}: {brief(value)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed(f"a name occurs twice: {brief(pairs)}")
    return members


def _no_constant(text: str) -> Any:
    raise Malformed(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed(f"{text} is beyond a double")
    return number


def _members(value: object, names: tuple[str, ...]) -> list[Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise Malformed(f"must have exactly the members {', '.join(names)}: {brief(value)}")
    return [value[name] for name in names]


def _number(value: object, nullable: bool = False) -> float | None:
    if value is None and nullable:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(f"{brief(value)} is not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise Malformed(f"{brief(value)} is beyond a double") from error
    if not math.isfinite(number):
        raise Malformed(f"{number} is not a number")
    return number


def _windows(value: object, names: tuple[str, ...]) -> list[list[Any]]:
    """Six objects with exactly these members, `window` first, windows in their fixed order."""
    if not isinstance(value, list):
        raise Malformed(f"{brief(value)} is not a list")
    rows = [_members(row, names) for row in value]
    if [row[0] for row in rows] != list(WINDOW_NAMES):
        raise Malformed(f"windows must be {', '.join(WINDOW_NAMES)}: {brief([row[0] for row in rows])}")
    return rows


Stats = tuple[tuple[float, float | None, int], ...]
"""(average, deviation, count) of the six windows"""
Scores = tuple[float | None, ...]


def stats_value(value: object) -> Stats:
    """The `stats` of a message or a row in a comparable form, or `Malformed`."""
    result = []
    for _, mean, spread, count in _windows(value, ("window", "avg_price", "std_price", "count")):
        if isinstance(count, bool) or not isinstance(count, int):
            raise Malformed(f"count {brief(count)} is not a whole number")
        average = _number(mean)
        assert average is not None
        result.append((average, _number(spread, nullable=True), count))
    return tuple(result)


def scores_value(value: object) -> Scores:
    """The `z_scores` of a message or a row in a comparable form, or `Malformed`."""
    return tuple(_number(score, nullable=True) for _, score in _windows(value, ("window", "zscore_price")))


def seconds_value(value: object) -> float:
    """`higher_window` or `lower_window` in a comparable form, or `Malformed`."""
    seconds = _number(value)
    assert seconds is not None
    return seconds


def published_time(value: object) -> int:
    """ms since the epoch of a published timestamp, or `Malformed` unless it is written 2025-05-08T13:06:00.000Z."""
    if not isinstance(value, str):
        raise Malformed(f"timestamp {brief(value)} is not a string")
    try:
        moment = milliseconds_of(value)
    except Rejected as rejected:
        raise Malformed(f"{rejected}: {value!r}") from rejected
    if format_timestamp(moment) != value:
        raise Malformed(f"timestamp must be written {format_timestamp(moment)}: {value!r}")
    return moment


# --- topics -----------------------------------------------------------------------------------------------------


def topic_results(records: Iterable[Record], member: str, read: Callable[[object], Any]) -> Iterator[Found]:
    """The results on an output topic: `member` is the third member of its messages, `read` checks its form."""
    home: dict[str, int] = {}
    for record in records:
        where = f"partition {record.partition} offset {record.offset}"
        try:
            stamp, symbol, result = _members(strict_json(record.value), ("timestamp", "symbol", member))
            if not isinstance(symbol, str):
                raise Malformed(f"symbol {brief(symbol)} is not a string")
            name, value = (symbol, published_time(stamp)), read(result)
        except Malformed as malformed:
            yield Found(where, None, None, str(malformed))
            continue
        if record.key != symbol.encode():
            yield Found(where, name, value, f"the key of {shown(name)} is {record.key!r}")
        elif home.setdefault(symbol, record.partition) != record.partition:
            yield Found(where, name, value, f"{symbol} is also on partition {home[symbol]}")
        else:
            yield Found(where, name, value)


def disorder(records: Iterable[Record]) -> int:
    """How many messages of a topic have an earlier timestamp than one of their symbol before them."""
    latest: dict[bytes | None, str] = {}
    count = 0
    for record in records:
        try:
            value = strict_json(record.value)
        except Malformed:
            continue
        stamp = value.get("timestamp") if isinstance(value, dict) else None
        if not isinstance(stamp, str):
            continue
        if stamp < latest.get(record.key, ""):
            count += 1
        latest[record.key] = max(stamp, latest.get(record.key, ""))
    return count


# --- Delta tables -----------------------------------------------------------------------------------------------

_COORDINATE_TYPES = {"topic": "string", "partition": "whole", "offset": "whole", "ingested_at": "timestamp"}
_RESULT_TYPES = {"symbol": "string", "timestamp": "timestamp"}
_TABLE_TYPES: dict[str, dict[str, str]] = {
    "prices": {"symbol": "string", "price": "decimal(18,8)", "timestamp": "timestamp"} | _COORDINATE_TYPES,
    "rejects": {"raw": "binary", "reason": "string"} | _COORDINATE_TYPES,
    "moving_stats": _RESULT_TYPES
    | {"stats": "array<struct<window:string,avg_price:double,std_price:double,count:whole>>"},
    "zscores": _RESULT_TYPES | {"z_scores": "array<struct<window:string,zscore_price:double>>"},
    "higher": _RESULT_TYPES | {"higher_window": "double"},
    "lower": _RESULT_TYPES | {"lower_window": "double"},
}


def schema_faults(name: str, table: Table) -> list[str]:
    """What is wrong with a table's columns and partitioning. A whole number may be an integer or a long."""
    owed = _TABLE_TYPES[name] | {"date": "date"}
    faults = [f"column {column} is missing" for column in owed if column not in table.schema]
    for column, kind in table.schema.items():
        if column not in owed:
            faults.append(f"column {column} does not belong there")
        elif owed[column] not in (kind, *(kind.replace(whole, "whole") for whole in _WHOLE_NUMBERS)):
            faults.append(f"column {column} is {kind}, must be {owed[column]}")
    if table.partition_columns != ["date"]:
        faults.append(f"partitioned by {table.partition_columns}, must be by date")
    return faults


def _rows(table: Table, names: Sequence[str]) -> Iterator[list[Any]]:
    return (list(row) for row in zip(*(table.columns[name] for name in names), strict=True))


def _arrival_faults(topic: object, ingested_at: object) -> str | None:
    if topic != INPUT_TOPIC:
        return f"topic is {topic!r}"
    return "ingested_at is null" if ingested_at is None else None


def has_columns(name: str, table: Table) -> bool:
    """Whether the promised columns are there at all, whatever their types, so that rows can be read."""
    return _TABLE_TYPES[name].keys() | {"date"} <= table.columns.keys()


def table_prices(table: Table) -> Iterator[Found]:
    """The rows of `prices` by Kafka coordinates; value = the tick."""
    names = ("symbol", "price", "timestamp", "topic", "partition", "offset", "ingested_at", "date")
    for symbol, price, micros, topic, partition, offset, ingested_at, day in _rows(table, names):
        fault = _arrival_faults(topic, ingested_at) or _time_fault(micros, day)
        if fault is None and not isinstance(price, Decimal):
            fault = f"price is {price!r}"
        value = None if fault else Tick(symbol, micros // 1000, int(price * UNITS_PER_PRICE))
        yield Found(f"partition {partition} offset {offset}", (partition, offset), value, fault)


def _time_fault(micros: int | None, day: int | None) -> str | None:
    if micros is None or micros % 1000:
        return f"timestamp {micros} µs is not in whole ms"
    owed = micros // 1000 // DAY_MS
    return None if day == owed else f"date is day {day} since the epoch, must be {owed}"


def table_rejects(table: Table) -> Iterator[Found]:
    """The rows of `rejects` by Kafka coordinates; value = (raw, reason, day, ingested_at)."""
    names = ("raw", "reason", "topic", "partition", "offset", "ingested_at", "date")
    for raw, reason, topic, partition, offset, ingested_at, day in _rows(table, names):
        fault = _arrival_faults(topic, ingested_at)
        yield Found(
            f"partition {partition} offset {offset}", (partition, offset), (raw, reason, day, ingested_at), fault
        )


def table_results(table: Table, member: str, read: Callable[[object], Any]) -> Iterator[Found]:
    """The rows of a table of results by the tick's identity."""
    for symbol, micros, result, day in _rows(table, ("symbol", "timestamp", member, "date")):
        where = f"{symbol} at {micros} µs"
        fault = _time_fault(micros, day)
        if fault is None and not isinstance(symbol, str):
            fault = f"symbol is {symbol!r}"
        if fault is not None:
            yield Found(where, None, None, fault)
            continue
        try:
            yield Found(where, (symbol, micros // 1000), read(result))
        except Malformed as malformed:
            yield Found(where, None, None, str(malformed))


# --- MongoDB ----------------------------------------------------------------------------------------------------

_DOCUMENT_MEMBERS = ("_id", "timestamp", "symbol", "window", "zscore_price")


def documents(collection: Collection, window: str) -> Iterator[Found]:
    """The documents of one window's collection by the tick's identity; value = the z-score."""
    for document in collection.documents:
        where = f"_id {document.get('_id')!r}"
        try:
            identity, moment, symbol, named, score = _members(document, _DOCUMENT_MEMBERS)
            if not isinstance(moment, DatetimeMS):
                raise Malformed(f"timestamp {moment!r} is not a BSON date")
            if not isinstance(symbol, str):
                raise Malformed(f"symbol is {symbol!r}")
            name = (symbol, int(moment))
            if identity != shown(name):
                raise Malformed(f"_id must be {shown(name)}")
            if named != window:
                raise Malformed(f"window is {named!r}, must be {window!r}")
            if score is not None and not isinstance(score, float):
                raise Malformed(f"zscore_price {score!r} is not a double")
            yield Found(where, name, _number(score, nullable=True))
        except Malformed as malformed:
            yield Found(where, None, None, str(malformed))
