"""The `trend` job: time to the next higher and to the next lower price of every tick, each as soon as it is certain.

Belongs here: the job's operator. Does not belong here: the search (`passage`) or what operators share (`operators`).
"""

from __future__ import annotations

from typing import Any

from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs import ordering, passage
from spark_jobs.contract import PASSAGE_HORIZON_MS
from spark_jobs.messages import pack_results
from spark_jobs.operators import NO_RESULTS, BytesState, Results, SymbolProcessor
from spark_jobs.packing import PackedStatistics


class TrendProcessor(SymbolProcessor):
    """Time to the next higher and to the next lower price, each as soon as it is certain."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        super().init(handle)
        self._waiting = BytesState(handle, "waiting")

    def results(
        self,
        symbol: str,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        if released is None:
            return NO_RESULTS
        state = self._waiting.get()
        waiting = passage.NONE_WAITING if state is None else passage.Waiting.from_bytes(state)
        watermark = released.buffer.largest - self._lateness_ms
        passages = passage.advance(waiting, released.timestamps, released.prices, watermark, PASSAGE_HORIZON_MS)
        self._waiting.put(passages.waiting.to_bytes())
        packed = [pack_results(*passages.higher), pack_results(*passages.lower)]
        return Results(packed, len(passages.higher.timestamps) + len(passages.lower.timestamps))
