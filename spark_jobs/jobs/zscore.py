"""The `zscore` job: ticks joined to their published statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs.compute import ordering, zscore_join
from spark_jobs.jobs.symbol_processor import NO_RESULTS, Results, SymbolProcessor
from spark_jobs.jobs.symbol_state import ChunkState
from spark_jobs.sources.packing import PackedStatistics
from tickhouse.contract.encoding import pack_results

_CHUNKED, _UNMATCHED = "chunked", "unmatched"
_MINUTES = "minutes"
"""Where an earlier version kept which chunks there are."""


class ZScoreProcessor(SymbolProcessor):
    """z-scores of every tick whose statistics have been published."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        super().init(handle)
        self._chunks = ChunkState(handle, self._state, "prices")

    def results(
        self,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        kept = self._kept()
        if len(offered[0]):
            kept = zscore_join.keep_prices(kept, self._chunks, *offered)
        held = self._state.get(_UNMATCHED)
        unmatched = zscore_join.NONE_UNMATCHED if held is None else zscore_join.Unmatched.from_bytes(held)
        if statistics is not None:
            unmatched = zscore_join.Unmatched(
                np.concatenate((unmatched.timestamps, statistics.timestamps)),
                np.concatenate((unmatched.averages, statistics.averages), axis=1),
                np.concatenate((unmatched.deviations, statistics.deviations), axis=1),
            )
        kept, left, scores = zscore_join.match(kept, self._chunks, unmatched)
        self._state.put(_CHUNKED, kept.to_bytes())
        self._state.put(_MINUTES, None)
        self._state.put(_UNMATCHED, left.to_bytes() if len(left.timestamps) else None)
        if not len(scores.timestamps):
            return NO_RESULTS
        return Results([pack_results(scores.timestamps, scores.z_scores)], len(scores.timestamps))

    def _kept(self) -> zscore_join.Chunked:
        chunked = self._state.get(_CHUNKED)
        if chunked is not None:
            return zscore_join.Chunked.from_bytes(chunked)
        return zscore_join.Chunked.uncounted(np.frombuffer(self._state.get(_MINUTES) or b"", dtype="<i8"))
