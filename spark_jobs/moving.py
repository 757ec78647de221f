"""The `moving` job: window statistics of every tick, once it is final.

Belongs here: the job's operator. Does not belong here: the arithmetic (`sliding`), what operators share (`operators`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs import ordering, sliding
from spark_jobs.messages import pack_results
from spark_jobs.operators import NO_RESULTS, BytesState, ChunkState, Results, SymbolProcessor
from spark_jobs.packing import PackedStatistics


class MovingProcessor(SymbolProcessor):
    """Window statistics of every tick that has become final."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        super().init(handle)
        self._index = BytesState(handle, "index")
        self._chunks = ChunkState(handle, "chunks")

    def results(
        self,
        symbol: str,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        if released is None or not len(released.timestamps):
            return NO_RESULTS
        state = self._index.get()
        index = sliding.empty_index() if state is None else np.frombuffer(state, dtype=sliding.INDEX_TYPE)
        index, computed = sliding.advance(index, self._chunks, released.timestamps, released.prices)
        self._index.put(index.tobytes())
        packed = pack_results(released.timestamps, computed.averages, computed.deviations, computed.counts)
        return Results([packed], len(released.timestamps))
