"""What the stateful operators of the jobs share: admission of ticks, and the shape of the rows.

Every operator works on buckets of symbols, and within a bucket symbol by symbol: what Spark does for each key, between
its process and Python's, costs more than what is computed for a symbol. A result row holds, for each output topic, the
results by symbol as one blob, packed as `messages.form_messages` takes them; what was counted on the way; and the
largest timestamp of the symbols' ticks in milliseconds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from spark_jobs.compute import ordering
from spark_jobs.framing import encode_blobs
from spark_jobs.jobs.symbol_state import SymbolState
from spark_jobs.sources.packing import PackedStatistics, PackedTicks, unpack

RESULT_TYPE = (
    "results array<binary>, input_rows bigint, output_rows bigint, "
    "late bigint, duplicates bigint, rejects bigint, event_time bigint"
)


_BUFFER = "buffer"
_ROW = Row(*(column.split()[0] for column in RESULT_TYPE.split(", ")))


class Results(NamedTuple):
    """A symbol's results for each output topic, as `messages.pack_results` gives them, and their number."""

    packed: list[bytes]
    total: int


NO_RESULTS = Results([], 0)


class SymbolProcessor(StatefulProcessor):
    """What all operators share: admission of ticks, counting, and the shape of the rows."""

    def __init__(self, lateness_ms: int) -> None:
        self._lateness_ms = lateness_ms

    def init(self, handle: StatefulProcessorHandle) -> None:
        """Called by Spark once for each task."""
        self._state = SymbolState(handle)

    def close(self) -> None:
        """Called by Spark when the task ends; there is nothing to let go of."""

    def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:
        """Called by Spark with all packed rows of one bucket in a micro-batch."""
        messages = unpack(row.content for row in rows)
        by_topic: dict[int, dict[str, bytes]] = defaultdict(dict)
        input_rows = output_rows = late = duplicates = 0
        latest = None
        self._state.load()
        for symbol in sorted({*messages.ticks, *messages.statistics}):
            self._state.turn_to(symbol)
            ticks, statistics = messages.ticks.get(symbol), messages.statistics.get(symbol)
            released = None
            offered = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
            if ticks is not None:
                released = self._release(ticks)
                offered = ticks.timestamps[released.fresh], ticks.prices[released.fresh]
                input_rows += len(ticks.timestamps)
                late += released.late
                duplicates += released.duplicates
                latest = released.buffer.largest if latest is None else max(latest, released.buffer.largest)
            if statistics is not None:
                input_rows += len(statistics.timestamps)
            results = self.results(released, offered, statistics)
            output_rows += results.total
            for topic, packed in enumerate(results.packed):
                by_topic[topic][symbol] = packed
        self._state.save()
        packed_by_topic = [encode_blobs(by_topic[topic]) for topic in range(len(by_topic))]
        rejected = messages.rejected
        yield _ROW(packed_by_topic, input_rows + rejected, output_rows, late, duplicates, rejected, latest)

    def _release(self, ticks: PackedTicks) -> ordering.Release:
        held = self._state.get(_BUFFER)
        buffer = ordering.EMPTY_BUFFER if held is None else ordering.Buffer.from_bytes(held)
        released = ordering.release(buffer, ticks.timestamps, ticks.prices, self._lateness_ms)
        self._state.put(_BUFFER, released.buffer.to_bytes())
        return released

    @abstractmethod
    def results(
        self,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        """The results that a micro-batch makes final for the symbol whose turn it is.

        `released` is what its ticks brought about, None if it had none; `offered` the timestamps and prices of those
        that count, final or not; `statistics` what came from the statistics topic.
        """
