"""Delta tables and collections as the streams and the load leave them, of a random walk, made without Spark.

The numbers are the project's own: window statistics, z-scores and higher/lower times by its pure functions.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from orchestration.lakehouse.tables import Lakehouse
from orchestration.serving.load import load
from orchestration.serving.mongo import MongoStore
from producer.walk import CATALOGUE, Walk
from spark_jobs.compute import first_passage, sliding
from tickhouse.contract.arrays import Integers
from tickhouse.contract.names import PASSAGE_HORIZON_MS, PRICE_SCALE, WINDOWS
from tickhouse.contract.validation import parse_price

STEP_MS = 100
_STATS = [("window", pa.string()), ("avg_price", pa.float64()), ("std_price", pa.float64()), ("count", pa.int64())]
_SCORES = [("window", pa.string()), ("zscore_price", pa.float64())]


class _Chunks(dict[int, bytes]):
    """The history of a symbol, kept in memory."""

    load = dict.__getitem__
    store = dict.__setitem__
    remove = dict.__delitem__


class Symbol:
    """One symbol's walk from `start` (milliseconds) on, stored up to wherever `advance` has taken it."""

    def __init__(self, lakehouse: Path, name: str, start: int, *, lateness_ms: int = 10_000) -> None:
        self._lakehouse = lakehouse
        self._name = name
        self._walk = Walk(name, CATALOGUE[name], seed=7)
        self._start = start
        self._lateness = lateness_ms
        self._steps = 0
        self._index = sliding.empty_index()
        self._chunks = _Chunks()
        self._waiting = first_passage.NONE_WAITING

    def advance(self, ticks: int) -> None:
        """Store so many further ticks, and the results that are final by then."""
        steps = range(self._steps, self._steps + ticks)
        self._steps += ticks
        times = np.array([self._start + step * STEP_MS for step in steps], dtype=np.int64)
        texts = [self._walk.price_at(step) for step in steps]
        prices = np.array([parse_price(text) for text in texts], dtype=np.int64)
        self._append("prices", times, pa.array([Decimal(text) for text in texts], pa.decimal128(18, 8)), "price")
        self._index, statistics = sliding.advance(self._index, self._chunks, times, prices)
        columns = zip(statistics.averages.T, statistics.deviations.T, statistics.counts.T, strict=True)
        stats = [
            [
                {"window": window, "avg_price": a, "std_price": None if d != d else d, "count": c}
                for window, a, d, c in zip(
                    WINDOWS, averages.tolist(), deviations.tolist(), counts.tolist(), strict=True
                )
            ]
            for averages, deviations, counts in columns
        ]
        self._append("moving_stats", times, pa.array(stats, pa.list_(pa.struct(_STATS))), "stats")
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.where(statistics.deviations > 0, statistics.deviations, np.nan)
            z_scores = (prices / PRICE_SCALE - statistics.averages) / spread
        scores = [
            [{"window": window, "zscore_price": None if z != z else z} for window, z in zip(WINDOWS, row, strict=True)]
            for row in z_scores.T.tolist()
        ]
        self._append("zscores", times, pa.array(scores, pa.list_(pa.struct(_SCORES))), "z_scores")
        watermark = int(times[-1]) - self._lateness
        self._waiting, higher, lower = first_passage.advance(
            self._waiting, times, prices, watermark, PASSAGE_HORIZON_MS
        )
        for direction, answers in (("higher", higher), ("lower", lower)):
            order = np.argsort(answers.timestamps)
            waits = pa.array(answers.waits[order] / 1_000, pa.float64())
            self._append(direction, answers.timestamps[order], waits, f"{direction}_window")

    def _append(self, table: str, times: Integers, values: pa.Array, column: str) -> None:
        dates = [datetime.datetime.fromtimestamp(time / 1_000, datetime.UTC).date() for time in times.tolist()]
        offsets = {"offset": pa.array((times - self._start) // STEP_MS)} if table == "prices" else {}
        rows = pa.table(
            {
                "symbol": [self._name] * len(times),
                "timestamp": pa.array(times, pa.timestamp("ms", "UTC")).cast(pa.timestamp("us", "UTC")),
                column: values,
                **offsets,
                "date": pa.array(dates, pa.date32()),
            }
        )
        write_deltalake(
            str(self._lakehouse / table),
            rows,
            mode="append",
            partition_by=["date"],
            configuration={"delta.enableChangeDataFeed": "true"},
        )


def load_all(lakehouse: Path, mongo_uri: str) -> None:
    """Bring the collections in line with the table."""
    store = MongoStore(mongo_uri)
    try:
        load(Lakehouse(str(lakehouse)), store)
    finally:
        store.close()
