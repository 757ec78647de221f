"""A lakehouse as the streams leave it, made without Spark: prices, and what the streams' operators publish of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from orchestration.recompute.expected_rows import RESULT_TABLES
from tests.operators_without_spark import Published, price_rows, publish, table_rows
from tickhouse.contract.arrays import timestamp_texts
from tickhouse.contract.names import price_text

LATENESS_MS = 10_000
Tick = tuple[str, int, int]
"""Symbol, timestamp in ms, price in 1e-8 units."""


class History:
    """Ticks arrive in `lakehouse`; each table holds as much of its topic as was archived last."""

    def __init__(self, lakehouse: Path, batches: Sequence[int] = (300, 70, 500)) -> None:
        self.lakehouse = lakehouse
        self._batches = batches
        self.ticks: list[Tick] = []
        self._archived = dict.fromkeys(("prices", *RESULT_TABLES), 0)
        self.copied: set[bytes] = set()
        for table in RESULT_TABLES:
            self._append(table, table_rows(table, []))

    def send(self, ticks: Sequence[Tick]) -> None:
        """Put ticks on the topic."""
        self.ticks += ticks

    def published(self) -> Published:
        """All that the streams have published by now."""
        times = timestamp_texts(np.array([time for _, time, _ in self.ticks]))
        values = [
            (time, f'{{"symbol":"{symbol}","price":{price_text(price)},"timestamp":"{text}"}}'.encode())
            for text, (symbol, time, price) in zip(times, self.ticks, strict=True)
        ]
        return publish(values, LATENESS_MS, self._batches, self._batches)

    def archive(self, **held_back: int) -> None:
        """Copy to the tables what they do not hold yet, but for the newest messages of a table that are `held_back`."""
        published = self.published()
        for table, done in self._archived.items():
            if table == "prices":
                until = max(done, len(self.ticks) - held_back.get(table, 0))
                rows = price_rows(self.ticks[done:until], done)
            else:
                # More ticks make other micro-batches, in which symbols follow each other in another order.
                new = [message for message in published[table] if message not in self.copied]
                new = new[: max(0, len(new) - held_back.get(table, 0))]
                self.copied.update(new)
                rows = table_rows(table, new)
            if rows.num_rows:
                self._append(table, rows)
            self._archived[table] = done + rows.num_rows

    def _append(self, table: str, rows: pa.Table) -> None:
        write_deltalake(
            str(self.lakehouse / table),
            rows,
            mode="append",
            partition_by=["date"],
            configuration={"delta.enableChangeDataFeed": "true"},
        )
