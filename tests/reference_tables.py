"""A home's tables as a faultless pipeline would have written them, made from random walks without Spark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from tests.reference.acceptance import format_timestamp
from tests.reference.ideal import snapshot
from tests.reference.model import Expected, Message, evaluate, keyed
from tests.reference.stream import random_walks

_TIME = pa.timestamp("us", "UTC")
_TYPES: dict[str, pa.DataType] = {
    "symbol": pa.string(),
    "price": pa.decimal128(18, 8),
    "timestamp": _TIME,
    "topic": pa.string(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "ingested_at": _TIME,
    "raw": pa.binary(),
    "reason": pa.string(),
    "stats": pa.list_(
        pa.struct(
            [("window", pa.string()), ("avg_price", pa.float64()), ("std_price", pa.float64()), ("count", pa.int64())]
        )
    ),
    "z_scores": pa.list_(pa.struct([("window", pa.string()), ("zscore_price", pa.float64())])),
    "higher_window": pa.float64(),
    "lower_window": pa.float64(),
    "date": pa.date32(),
}
_COMMENTS = {"symbol": "trading pair"}
_LATE_EVERY = 400
_REPEATED_EVERY = 300
_DELAY_MS = 30


def messages(seed: int, symbols: Sequence[str], ticks: int) -> list[Message]:
    """Random walks as messages in the order of their time, some sent twice and some sent again too late."""
    sent: list[bytes] = []
    times: list[int] = []
    walk = random_walks(seed, symbols, ticks, gaps=0)
    for number, tick in enumerate(walk):
        repeats = [tick]
        if number % _REPEATED_EVERY == 7:
            repeats.append(tick)
        if number % _LATE_EVERY == 399:
            repeats.append(walk[number - 399]._replace(timestamp=walk[number - 399].timestamp + 1))
        for one in repeats:
            stamp = format_timestamp(one.timestamp)
            price = f"{one.units // 10**8}.{one.units % 10**8:08d}"
            sent.append(f'{{"symbol":"{one.symbol}","price":{price},"timestamp":"{stamp}"}}'.encode())
            times.append(tick.timestamp + _DELAY_MS)
        if number == len(walk) // 2:
            sent.append(b"no tick")
            times.append(tick.timestamp + _DELAY_MS)
    return [keyed(0, offset, time, value) for offset, (time, value) in enumerate(zip(times, sent, strict=True))]


def make(lakehouse: Path, seed: int, symbols: Sequence[str], ticks: int) -> Expected:
    """Write the six tables for about `ticks` ticks and return what they were made of."""
    sent = messages(seed, symbols, ticks)
    expected = evaluate(sent)
    tables = snapshot(sent, expected).tables
    assert tables is not None
    for name, table in tables.items():
        fields = [
            pa.field(column, _TYPES[column], metadata={"comment": _COMMENTS[column]} if column in _COMMENTS else None)
            for column in table.columns
        ]
        write_deltalake(
            str(lakehouse / name),
            pa.table(
                {field.name: pa.array(table.columns[field.name], field.type) for field in fields}, pa.schema(fields)
            ),
            partition_by=["date"],
            configuration={"delta.enableChangeDataFeed": "true"},
        )
    return expected
