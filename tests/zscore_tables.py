"""Delta tables `zscores` as the zscore stream writes them, made without Spark."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from tickhouse.contract.names import WINDOWS

START_MS = 1_746_709_560_000  # 2025-05-08T13:06:00Z

SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("z_scores", pa.list_(pa.struct([("window", pa.string()), ("zscore_price", pa.float64())]))),
        ("date", pa.date32()),
    ]
)


def score(tick: int, window: str) -> float | None:
    """The z-score that the row of a tick has: a null now and then."""
    position = list(WINDOWS).index(window)
    return None if tick % 7 == position else tick + position / 10


def rows(ticks: Sequence[int], symbol: str = "BTCUSDT", windows: Sequence[str] = tuple(WINDOWS)) -> pa.Table:
    """A row for each tick, 100 ms apart."""
    times = [datetime.datetime.fromtimestamp(START_MS / 1_000 + tick / 10, datetime.UTC) for tick in ticks]
    return pa.Table.from_pylist(
        [
            {
                "symbol": symbol,
                "timestamp": time,
                "z_scores": [{"window": window, "zscore_price": score(tick, window)} for window in windows],
                "date": time.date(),
            }
            for tick, time in zip(ticks, times, strict=True)
        ],
        schema=SCHEMA,
    )


def append(lakehouse: Path, table: pa.Table, *, changes: bool = True) -> None:
    """Append rows to the table, making it if it is missing."""
    write_deltalake(
        str(lakehouse / "zscores"),
        table,
        mode="append",
        partition_by=["date"],
        configuration={"delta.enableChangeDataFeed": "true"} if changes else None,
    )
