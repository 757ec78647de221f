"""The `zscore` job: ticks joined to their published statistics.

Belongs here: the job's operator. Does not belong here: the join (`matching`) or what operators share (`operators`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs import matching, ordering
from spark_jobs.messages import pack_results
from spark_jobs.operators import NO_RESULTS, BytesState, ChunkState, Results, SymbolProcessor
from spark_jobs.packing import PackedStatistics


class ZScoreProcessor(SymbolProcessor):
    """z-scores of every tick whose statistics have been published."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        super().init(handle)
        self._minutes = BytesState(handle, "minutes")
        self._unmatched = BytesState(handle, "unmatched")
        self._chunks = ChunkState(handle, "prices")

    def results(
        self,
        symbol: str,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        minutes = np.frombuffer(self._minutes.get() or b"", dtype="<i8")
        if len(offered[0]):
            minutes = matching.keep_prices(minutes, self._chunks, *offered)
        held = self._unmatched.get()
        unmatched = matching.NONE_UNMATCHED if held is None else matching.Unmatched.from_bytes(held)
        if statistics is not None:
            unmatched = matching.Unmatched(
                np.concatenate((unmatched.timestamps, statistics.timestamps)),
                np.concatenate((unmatched.averages, statistics.averages), axis=1),
                np.concatenate((unmatched.deviations, statistics.deviations), axis=1),
            )
        minutes, left, scores = matching.match(minutes, self._chunks, unmatched)
        self._minutes.put(minutes.astype("<i8").tobytes())
        if held or len(left.timestamps):
            self._unmatched.put(left.to_bytes())
        if not len(scores.timestamps):
            return NO_RESULTS
        return Results([pack_results(scores.timestamps, scores.z_scores)], len(scores.timestamps))
