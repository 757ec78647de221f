"""What a computing query reads, micro-batch by micro-batch: where each ends, and its messages, packed.

Belongs here: putting together what asks, plans and reads. Does not belong here: how far topics reach (`topics`), how
much a micro-batch has (`batch_limit`), reading a range (`offset_ranges`), what is made of the messages (`packing`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pyarrow as pa

from spark_jobs.batch_limit import next_ends
from spark_jobs.gaps import Offsets
from spark_jobs.offset_ranges import RangeReader, record_batch
from spark_jobs.packing import pack
from spark_jobs.reading import Reading
from spark_jobs.topics import TopicWatch


class CutOff(Exception):
    """A topic ends before the offset at which a query goes on."""


class TopicReader:
    """The topics of one query."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._watch = TopicWatch(reading.topics, reading.client)
        self._ranges = {topic: RangeReader(topic, reading.client) for topic in reading.topics}
        # Messages come by the ten thousand, and with them the garbage collector: it need not look at all that was
        # imported again and again.
        gc.freeze()

    def first(self) -> Offsets:
        """The first offsets that there are. Raises TopicsUnknown."""
        return self._watch.first()

    def ends_after(self, position: Offsets) -> Offsets:
        """Where a micro-batch ends that begins at `position`; there, if there is nothing new.

        Raises TopicsUnknown, CutOff.
        """
        ends = self._watch.committed()
        for topic, parts in position.items():
            for number, offset in parts.items():
                if ends.get(topic, {}).get(number, 0) < offset:
                    raise CutOff(f"{topic} partition {number} ends before offset {offset}, which is to be read next")
        if self._reading.until is not None:
            ends = self._reading.until
        return next_ends(position, ends, self._reading.largest_batch, self._reading.awaited)

    def rows(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        """All messages between offsets, as rows of `packing.PACKED_TYPE`. Raises what `RangeReader.read` raises."""
        return pack(self._batches(first, ends), buckets=self._reading.buckets)

    def close(self) -> None:
        """Let go of the brokers."""
        for reader in self._ranges.values():
            reader.close()

    def _batches(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        for topic, reader in self._ranges.items():
            for messages in reader.read(first.get(topic, {}), ends.get(topic, {})):
                yield record_batch(messages)
