"""The Kafka records of a micro-batch's offsets, read by librdkafka.

Belongs here: reading a range of offsets of a topic, whole or not at all. Does not belong here: which range a
micro-batch has (`checkpoints`) or what its messages are (`published`, `acceptance`).

Spark plans what a micro-batch reads, and keeps it in the checkpoint. Its own reader takes record after record from the
JVM's consumer, into rows, into Arrow and through a pipe to Python, which costs ten times as much as reading them here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

_MESSAGES = 20_000
_POLL_SECONDS = 0.1
_SILENCE_SECONDS = 60.0


class OffsetRange(NamedTuple):
    """A topic's records from the offsets `first` up to, not including, `ends`, by partition.

    A partition without a first offset is read from the beginning of what it has.
    """

    topic: str
    first: dict[int, int]
    ends: dict[int, int]


def read(wanted: OffsetRange, client: Mapping[str, str]) -> Iterator[list[Message]]:
    """All committed records of a range, some at a time; those of a partition in order.

    `client`: librdkafka settings. Raises KafkaException, also when records of the range are gone, and TimeoutError when
    nothing arrives for a minute.
    """
    consumer = Consumer(
        {
            **client,
            # Required, and never used: nothing is committed.
            "group.id": "tickhouse-ranges",
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            # A range may end with what is no message: the end of a transaction.
            "enable.partition.eof": "true",
            # Fetched ahead for each partition, beside what is being written.
            "queued.max.messages.kbytes": "16384",
            "check.crcs": "true",
        }
    )
    try:
        yield from _read(consumer, wanted)
    finally:
        consumer.close()


def values(messages: list[Message]) -> pa.Array:
    """What the records say, as bytes."""
    return pa.array([message.value() for message in messages], pa.binary())


def record_batch(messages: list[Message]) -> pa.RecordBatch:
    """Records as Spark's reader gives them: topic, partition, offset, timestamp and value."""
    milliseconds = pa.array([message.timestamp()[1] for message in messages], pa.timestamp("ms", tz="UTC"))
    return pa.RecordBatch.from_pydict(
        {
            "topic": pa.array([message.topic() for message in messages], pa.string()),
            "partition": pa.array([message.partition() for message in messages], pa.int32()),
            "offset": pa.array([message.offset() for message in messages], pa.int64()),
            "timestamp": milliseconds.cast(pa.timestamp("us", tz="UTC")),
            "value": values(messages),
        }
    )


def _read(consumer: Consumer, wanted: OffsetRange) -> Iterator[list[Message]]:
    places = {number: wanted.first.get(number, OFFSET_BEGINNING) for number in wanted.ends}
    left = {number for number, first in places.items() if first < wanted.ends[number]}
    consumer.assign([TopicPartition(wanted.topic, number, places[number]) for number in left])
    heard = time.monotonic()
    while left:
        inside = []
        messages = consumer.consume(_MESSAGES, _POLL_SECONDS)
        for message in messages:
            error = message.error()
            number, offset = message.partition(), message.offset()
            if number is None or offset is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
                raise KafkaException(error)
            if offset < wanted.ends[number]:
                if error is None:
                    inside.append(message)
            elif number in left:
                left.discard(number)
                consumer.incremental_unassign([TopicPartition(wanted.topic, number)])
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS:
            raise TimeoutError(f"no message of {wanted.topic} has come for {_SILENCE_SECONDS:.0f} s")
        if inside:
            yield inside
