"""The `zscore` job: ticks joined to their published statistics.

Belongs here: the job's operator. Does not belong here: the join (`matching`) or what operators share (`operators`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pyspark.sql.streaming.stateful_processor import StatefulProcessorHandle

from spark_jobs import matching, ordering
from spark_jobs.messages import pack_results
from spark_jobs.operators import NO_RESULTS, Results, SymbolProcessor
from spark_jobs.packing import PackedStatistics
from spark_jobs.symbol_state import ChunkState

_MINUTES, _UNMATCHED = "minutes", "unmatched"


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
        minutes = np.frombuffer(self._state.get(_MINUTES) or b"", dtype="<i8")
        if len(offered[0]):
            minutes = matching.keep_prices(minutes, self._chunks, *offered)
        held = self._state.get(_UNMATCHED)
        unmatched = matching.NONE_UNMATCHED if held is None else matching.Unmatched.from_bytes(held)
        if statistics is not None:
            unmatched = matching.Unmatched(
                np.concatenate((unmatched.timestamps, statistics.timestamps)),
                np.concatenate((unmatched.averages, statistics.averages), axis=1),
                np.concatenate((unmatched.deviations, statistics.deviations), axis=1),
            )
        minutes, left, scores = matching.match(minutes, self._chunks, unmatched)
        self._state.put(_MINUTES, minutes.astype("<i8").tobytes())
        self._state.put(_UNMATCHED, left.to_bytes() if len(left.timestamps) else None)
        if not len(scores.timestamps):
            return NO_RESULTS
        return Results([pack_results(scores.timestamps, scores.z_scores)], len(scores.timestamps))
