"""What a computing query reads: topics as a source of Spark that gives packed ticks.

Belongs here: offsets as Spark wants them, planning a micro-batch, and reading it. Does not belong here: reading a range
(`offset_ranges`), how much a micro-batch has (`batch_limit`), what is made of the messages (`packing`).

Spark starts a process for the source of each query, asks it how far the topics reach, and has it give what lies between
two offsets, which then waits in Spark's block store for the one task that wants it. As that process lives as long as
the query, it has the next messages while Spark is still at work on the last. The offsets have the form that those of
Spark's own Kafka source have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.datasource import DataSource, DataSourceStreamReader, InputPartition
from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper
from pyspark.sql.types import StructType

from spark_jobs.batch_limit import next_ends
from spark_jobs.gaps import Offsets
from spark_jobs.offset_ranges import RangeReader, record_batch
from spark_jobs.packing import PACKED_TYPE, pack
from spark_jobs.topics import TopicWatch

_NAME = "packed-topics"
_SparkOffsets = dict[str, dict[str, int]]


class Reading(NamedTuple):
    """What to read: plain data that Spark sends to its workers."""

    topics: tuple[str, ...]
    client: dict[str, str]
    """librdkafka settings for reaching the brokers, the password among them."""
    largest_batch: int
    """In messages."""
    buckets: int
    """Into how many keys of Spark's state symbols are put."""
    until: Offsets | None = None
    """Where to stop reading; None = never."""

    def __repr__(self) -> str:
        return f"Reading(topics={self.topics}, bootstrap={self.client.get('bootstrap.servers')})"


class CutOff(Exception):
    """A topic ends before the offset at which a query goes on."""


def packed_stream(spark: SparkSession, reading: Reading) -> DataFrame:
    """The stream of rows of `packing.PACKED_TYPE`, in one partition, from the first offsets on."""

    class PackedTopics(DataSource):
        """Made for each stream: what it is to read then need not be among the options, which plans show."""

        @classmethod
        def name(cls) -> str:
            return _NAME

        def schema(self) -> str:
            return PACKED_TYPE

        def streamReader(self, schema: StructType) -> DataSourceStreamReader:
            return _PackedReader(reading)

    spark.dataSource.register(PackedTopics)
    return spark.readStream.format(_NAME).load()


class _PackedReader(_SimpleStreamReaderWrapper):
    """Called by Spark, in the process of the query's source.

    It is a reader whose process gives Spark the rows along with the plan. Spark takes rows only from its own class of
    that kind, which asks for a micro-batch before it is planned and keeps what it got until the next is done: nothing
    but the name of it is used here.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._position: Offsets | None = None
        """Where the next micro-batch begins."""

    # Made when they are needed: Spark also makes readers that it only sends about.
    @cached_property
    def _watch(self) -> TopicWatch:
        return TopicWatch(self._reading.topics, self._reading.client)

    @cached_property
    def _readers(self) -> dict[str, RangeReader]:
        return {topic: RangeReader(topic, self._reading.client) for topic in self._reading.topics}

    def initialOffset(self) -> _SparkOffsets:
        """Where a new query begins. Raises TopicsUnknown."""
        return _to_spark(self._watch.first())

    def latestOffset(self) -> _SparkOffsets:
        """Where the next micro-batch ends; where it begins, if there is nothing new. Raises TopicsUnknown, CutOff."""
        if self._position is None:
            # A query that has begun before is told where it was (`partitions`) before anything else.
            self._position = self._watch.first()
        ends = self._watch.committed()
        for topic, parts in self._position.items():
            for number, offset in parts.items():
                if ends.get(topic, {}).get(number, 0) < offset:
                    raise CutOff(f"{topic} partition {number} ends before offset {offset}, which is to be read next")
        if self._reading.until is not None:
            ends = self._reading.until
        return _to_spark(next_ends(self._position, ends, self._reading.largest_batch))

    def partitions(self, start: _SparkOffsets, end: _SparkOffsets) -> list[InputPartition]:
        """The one partition of a micro-batch. With `start` = `end` Spark tells where the query goes on."""
        self._position = _from_spark(end)
        return [InputPartition(None)]

    def getCache(self, start: _SparkOffsets, end: _SparkOffsets) -> Iterator[Any]:
        """The rows of a micro-batch. Raises what `RangeReader.read` raises."""
        return pack(self._batches(_from_spark(start), _from_spark(end)), buckets=self._reading.buckets)

    def _batches(self, first: Offsets, ends: Offsets) -> Iterator[pa.RecordBatch]:
        for topic, reader in self._readers.items():
            for messages in reader.read(first.get(topic, {}), ends.get(topic, {})):
                yield record_batch(messages)

    def commit(self, end: _SparkOffsets) -> None:
        """Nothing is kept that could be let go of."""

    def stop(self) -> None:
        """Called when the query ends."""
        for reader in self._readers.values():
            reader.close()


def _to_spark(offsets: Mapping[str, Mapping[int, int]]) -> _SparkOffsets:
    # Spark compares offsets as texts.
    return {
        topic: {str(number): offset for number, offset in sorted(parts.items())}
        for topic, parts in sorted(offsets.items())
    }


def _from_spark(offsets: Mapping[str, Mapping[str, int]]) -> Offsets:
    return {topic: {int(number): offset for number, offset in parts.items()} for topic, parts in offsets.items()}
