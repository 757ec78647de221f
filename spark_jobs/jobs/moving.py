"""The `moving` job: window statistics of every tick, once it is final."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs.compute import ordering, sliding
from spark_jobs.jobs.symbol_processor import NO_RESULTS, Results, SymbolProcessor
from spark_jobs.jobs.symbol_state import ChunkCache, ChunkState
from spark_jobs.sources.packing import PackedStatistics
from tickhouse.contract.encoding import pack_results

_INDEX = "index"
_CACHE = ChunkCache(256 * 2**20)
"""Of a worker: the chunks in which the windows of each symbol begin, six of them."""


class MovingProcessor(SymbolProcessor):
    """Window statistics of every tick that has become final."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        super().init(handle)
        # History never changes: only its newest chunk grows.
        self._chunks = ChunkState(handle, self._state, "chunks", _CACHE)

    def results(
        self,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        if released is None or not len(released.timestamps):
            return NO_RESULTS
        held = self._state.get(_INDEX)
        index = sliding.empty_index() if held is None else np.frombuffer(held, dtype=sliding.INDEX_TYPE)
        index, computed = sliding.advance(index, self._chunks, released.timestamps, released.prices)
        self._state.put(_INDEX, index.tobytes())
        packed = pack_results(released.timestamps, computed.averages, computed.deviations, computed.counts)
        return Results([packed], len(released.timestamps))
