"""What the stateful operators of the jobs share: admission of ticks, and the shape of the rows.

Belongs here: how packed rows become calls and results become rows. Does not belong here: what a job computes (its own
module), where state is kept (`symbol_state`), the late rule (`ordering`), publishing (`sinks`).

Every operator works per symbol. A result row holds the results for each of the job's output topics, packed as
`messages.form_messages` takes them, what was counted on the way, and the largest timestamp of the symbol's ticks in
milliseconds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import Row
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

from spark_jobs import ordering
from spark_jobs.packing import REJECTED, STATISTICS, TICKS, PackedStatistics, unpack_statistics, unpack_ticks
from spark_jobs.symbol_state import SymbolState

RESULT_TYPE = (
    "symbol string, results array<binary>, input_rows bigint, output_rows bigint, "
    "late bigint, duplicates bigint, rejects bigint, event_time bigint"
)


_BUFFER = "buffer"
_ROW = Row(*(column.split()[0] for column in RESULT_TYPE.split(", ")))


class Results(NamedTuple):
    """Results for each output topic, as `messages.pack_results` gives them, and their number."""

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
        """Called by Spark with all packed rows of one symbol in a micro-batch."""
        payloads: dict[int, list[bytes]] = {TICKS: [], STATISTICS: [], REJECTED: []}
        messages = dict.fromkeys(payloads, 0)
        for row in rows:
            payloads[row.kind].append(row.payload)
            messages[row.kind] += row.messages
        (symbol,) = key
        received = sum(messages.values())
        if messages[REJECTED]:
            yield _ROW(symbol, [], received, 0, 0, 0, messages[REJECTED], None)
            return
        self._state.load()
        late = duplicates = 0
        released = None
        if payloads[TICKS]:
            ticks = unpack_ticks(payloads[TICKS])
            held = self._state.get(_BUFFER)
            buffer = ordering.EMPTY_BUFFER if held is None else ordering.Buffer.from_bytes(held)
            released = ordering.release(buffer, ticks.timestamps, ticks.prices, self._lateness_ms)
            self._state.put(_BUFFER, released.buffer.to_bytes())
            late, duplicates = released.late, released.duplicates
            offered = ticks.timestamps[released.fresh], ticks.prices[released.fresh]
        else:
            offered = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        statistics = unpack_statistics(payloads[STATISTICS]) if payloads[STATISTICS] else None
        results = self.results(released, offered, statistics)
        self._state.save()
        latest = None if released is None else released.buffer.largest
        yield _ROW(symbol, results.packed, received, results.total, late, duplicates, 0, latest)

    @abstractmethod
    def results(
        self,
        released: ordering.Release | None,
        offered: tuple[Any, Any],
        statistics: PackedStatistics | None,
    ) -> Results:
        """The results that a micro-batch makes final.

        `released` is what its ticks brought about, None if it had none; `offered` the timestamps and prices of those
        that count, final or not; `statistics` what came from the statistics topic.
        """
