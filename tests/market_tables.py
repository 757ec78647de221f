"""Tables `prices`, `moving_stats` and `zscores` of a calm market, as the streams write them, made without Spark."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from tests.zscore_tables import SCHEMA as ZSCORES
from tickhouse.contract.names import WINDOWS

STEP = datetime.timedelta(milliseconds=100)
_MICROSECONDS = pa.timestamp("us", "UTC")
PRICES = pa.schema(
    [
        ("symbol", pa.string()),
        ("price", pa.decimal128(18, 8)),
        ("timestamp", _MICROSECONDS),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("ingested_at", _MICROSECONDS),
        ("date", pa.date32()),
    ]
)
_STATISTICS = [("window", pa.string()), ("avg_price", pa.float64()), ("std_price", pa.float64()), ("count", pa.int64())]
MOVING_STATS = pa.schema(
    [
        ("symbol", pa.string()),
        ("timestamp", _MICROSECONDS),
        ("stats", pa.list_(pa.struct(_STATISTICS))),
        ("date", pa.date32()),
    ]
)
SCHEMAS = {"prices": PRICES, "moving_stats": MOVING_STATS, "zscores": ZSCORES}


def rows(table: str, start: datetime.datetime, ticks: Sequence[int], score: float | None = None) -> pa.Table:
    """A row for each tick, 100 ms apart. z-scores are +1 and -1 in turn, or `score`."""
    return pa.Table.from_pylist([_row(table, start, tick, score) for tick in ticks], schema=SCHEMAS[table])


def _row(table: str, start: datetime.datetime, tick: int, score: float | None) -> dict[str, Any]:
    time = start + tick * STEP
    row: dict[str, Any] = {"symbol": "BTCUSDT", "timestamp": time, "date": time.date()}
    if table == "prices":
        kafka = {"topic": "btc-price", "partition": 0, "offset": tick, "ingested_at": time}
        return row | kafka | {"price": Decimal(64_000 + tick % 7)}
    if table == "moving_stats":
        statistics = {"avg_price": 64_003.0, "std_price": 2.0, "count": tick + 1}
        return row | {"stats": [{"window": window, **statistics} for window in WINDOWS]}
    value = (-1.0) ** tick if score is None else score
    return row | {"z_scores": [{"window": window, "zscore_price": value} for window in WINDOWS]}


def append(lakehouse: Path, table: str, added: pa.Table) -> None:
    """Append rows to a table, making it if it is missing."""
    write_deltalake(
        str(lakehouse / table),
        added,
        mode="append",
        partition_by=["date"],
        configuration={"delta.enableChangeDataFeed": "true"},
        schema_mode="merge",
    )


def make(lakehouse: Path, start: datetime.datetime, ticks: int) -> None:
    """All three tables."""
    for table in SCHEMAS:
        append(lakehouse, table, rows(table, start, range(ticks)))
