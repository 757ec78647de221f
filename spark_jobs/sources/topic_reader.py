"""What a computing query reads, micro-batch by micro-batch: where each ends, and its messages, packed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import pyarrow as pa

from spark_jobs.sources.batch_limit import between, next_ends
from spark_jobs.sources.gc_tuning import tune_gc
from spark_jobs.sources.packing import pack
from spark_jobs.sources.source_config import Reading
from tickhouse.kafka.markers import limited
from tickhouse.kafka.offsets import Offsets
from tickhouse.kafka.range_reader import RangeReader, record_batch
from tickhouse.kafka.topics import TopicWatch

_MANY = 0.5
"""The share of the largest micro-batch from which on one is read ahead: of fewer messages more will have come later."""


_BATCH_BYTES = 256 * 2**20
"""Of values in a micro-batch, as far as can be told beforehand: one that takes minutes would be taken for stuck."""
_FEWEST = 100


class CutOff(Exception):
    """A topic ends before the offset at which a query goes on."""


class _Ahead(NamedTuple):
    """A micro-batch that is read before Spark asks for it."""

    first: Offsets
    ends: Offsets
    rows: Future[list[pa.RecordBatch]]


class TopicReader:
    """The topics of one query."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._watch = TopicWatch(reading.topics, reading.client)
        self._ranges = {topic: RangeReader(topic, reading.client) for topic in reading.topics}
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._ahead: _Ahead | None = None
        self._mean_bytes = 0.0
        """Of a message of the micro-batch that was read last."""
        tune_gc()

    def first(self) -> Offsets:
        """Where a new query begins. Raises TopicsUnknown."""
        return self._watch.first() if self._reading.begins is None else self._reading.begins

    def ends_after(self, position: Offsets) -> Offsets:
        """Where a micro-batch ends that begins at `position`; there, if there is nothing new.

        Raises TopicsUnknown, CutOff.
        """
        if self._ahead is not None and self._ahead.first == position:
            return self._ahead.ends
        ends = self._watch.committed()
        for topic, parts in position.items():
            for number, offset in parts.items():
                if ends.get(topic, {}).get(number, 0) < offset:
                    raise CutOff(f"{topic} partition {number} ends before offset {offset}, which is to be read next")
        if self._reading.until is not None:
            ends = self._reading.until
        ends = limited(position, ends, self._reading.stops)
        return next_ends(position, ends, self._most, self._reading.awaited)

    @property
    def _most(self) -> int:
        """Messages that the next micro-batch may have: fewer than usual where those of the last one were large."""
        largest = self._reading.largest_batch
        return min(largest, max(_FEWEST, int(_BATCH_BYTES / self._mean_bytes))) if self._mean_bytes else largest

    def rows(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        """All messages between offsets, as rows of `packing.PACKED_TYPE`. Raises what `RangeReader.read` raises."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            wait([ahead.rows])
        if ahead is not None and (ahead.first, ahead.ends) == (first, ends):
            yield from ahead.rows.result()
        else:
            yield from self._read(first, ends)
        self._read_ahead(ends)

    def close(self) -> None:
        """Let go of the brokers."""
        self._thread.shutdown(cancel_futures=True)
        for reader in self._ranges.values():
            reader.close()

    def _read_ahead(self, position: Offsets) -> None:
        """Where messages are many, have the next micro-batch read while Spark is at work on the last one; else rest."""
        ends = self.ends_after(position)
        if between(position, ends) >= self._most * _MANY:
            self._ahead = _Ahead(position, ends, self._thread.submit(lambda: list(self._read(position, ends))))
        else:
            for reader in self._ranges.values():
                reader.rest()

    def _read(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        return pack(self._batches(first, ends), buckets=self._reading.buckets)

    def _batches(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        read = count = 0
        for topic, reader in self._ranges.items():
            for messages in reader.read(first.get(topic, {}), ends.get(topic, {})):
                batch = record_batch(messages)
                read, count = read + batch.nbytes, count + len(batch)
                yield batch
        if count:
            self._mean_bytes = read / count
