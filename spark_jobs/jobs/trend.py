"""The `trend` job: time to the next higher and to the next lower price of every tick, each as soon as it is certain."""

from __future__ import annotations

from typing import Any

from spark_jobs.compute import first_passage, ordering
from spark_jobs.jobs.symbol_processor import NO_RESULTS, Results, SymbolProcessor
from spark_jobs.sources.packing import PackedStatistics
from tickhouse.contract.encoding import pack_results
from tickhouse.contract.names import PASSAGE_HORIZON_MS

_WAITING = "waiting"


class TrendProcessor(SymbolProcessor):
    """Time to the next higher and to the next lower price, each as soon as it is certain."""

    def results(
        self,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        if released is None:
            return NO_RESULTS
        held = self._state.get(_WAITING)
        waiting = first_passage.NONE_WAITING if held is None else first_passage.Waiting.from_bytes(held)
        watermark = released.buffer.largest - self._lateness_ms
        passages = first_passage.advance(waiting, released.timestamps, released.prices, watermark, PASSAGE_HORIZON_MS)
        self._state.put(_WAITING, passages.waiting.to_bytes())
        packed = [pack_results(*passages.higher), pack_results(*passages.lower)]
        return Results(packed, len(passages.higher.timestamps) + len(passages.lower.timestamps))
