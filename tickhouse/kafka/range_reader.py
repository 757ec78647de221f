"""The Kafka records of a micro-batch's offsets, read by librdkafka.

Spark's own reader takes record after record from the JVM's consumer, into rows, into Arrow and through a pipe to
Python, which costs ten times as much as reading them here.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from tickhouse.errors import Damaged

_MESSAGES = 20_000
_BYTES = 64 * 2**20
"""Of keys and values, as many as are given at once beside a single message: Arrow's binary arrays end at 2 GiB."""
RECORD_SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        # As whole milliseconds, negative where there is none: brokers take times that no type of timestamps can hold.
        ("timestamp", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
    ]
)
"""Kafka records."""
_POLL_SECONDS = 0.5
_SILENCE_SECONDS = 60.0
_DAMAGE = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED, KafkaError.INVALID_MSG)
"""What librdkafka says of a batch whose CRC, compression or format is not what it must be."""


class TopicDamaged(Damaged):
    """Messages are not what the broker was sent."""

    def __init__(self, topic: str | None, partition: int | None, offset: int | None, what: str) -> None:
        super().__init__(
            f"{topic} partition {partition} is damaged at offset {offset} ({what}): put the broker's data back from a "
            "backup, or have the broker delete the messages up to behind the damage (kafka-delete-records), after "
            "which `tickhouse skip` goes on past them"
        )


class OffsetRange(NamedTuple):
    """A topic's records from the offsets `first` up to, not including, `ends`, by partition.

    A partition without a first offset is read from the beginning of what it has.
    """

    topic: str
    first: dict[int, int]
    ends: dict[int, int]


def read(wanted: OffsetRange, client: Mapping[str, str]) -> Iterator[list[Message]]:
    """All committed records of a range, some at a time; those of a partition in order.

    `client`: librdkafka settings. Raises what `RangeReader.read` raises.
    """
    reader = RangeReader(wanted.topic, client, ahead=0)
    try:
        yield from reader.read(wanted.first, wanted.ends)
    finally:
        reader.close()


def size(messages: list[Message]) -> int:
    """Bytes of the keys and values of records."""
    return sum(map(len, messages)) + sum(map(len, filter(None, map(Message.key, messages))))


def portions(messages: list[Message]) -> Iterator[list[Message]]:
    """Records in their order, so many at a time that they have `_BYTES` at most, or are one."""
    if size(messages) <= _BYTES:
        if messages:
            yield messages
        return
    portion: list[Message] = []
    held = 0
    for message in messages:
        length = size([message])
        if portion and held + length > _BYTES:
            yield portion
            portion, held = [], 0
        portion.append(message)
        held += length
    yield portion


def values(messages: list[Message]) -> pa.Array:
    """What the records say, as bytes."""
    return pa.array([message.value() for message in messages], pa.binary())


def record_batch(messages: list[Message]) -> pa.RecordBatch:
    """n ≥ 1 records of one topic as rows of `RECORD_SCHEMA`."""
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(messages[0].topic(), pa.string()), len(messages)),
            pa.array([message.partition() for message in messages], pa.int32()),
            pa.array([message.offset() for message in messages], pa.int64()),
            pa.array([_milliseconds(*message.timestamp()) for message in messages], pa.int64()),
            pa.array([message.key() for message in messages], pa.binary()),
            values(messages),
        ],
        schema=RECORD_SCHEMA,
    )


def _milliseconds(kind: int, milliseconds: int) -> int:
    return -1 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds


class RangeReader:
    """Ranges of one topic, one after the other: where one goes on from the one before, its records are fetched already.

    `client`: librdkafka settings; `ahead`: of how many records beyond a range a partition is let go of until the next.
    """

    def __init__(self, topic: str, client: Mapping[str, str], ahead: int = _MESSAGES) -> None:
        self._topic = topic
        self._most_ahead = ahead
        self._consumer = Consumer(
            {
                **client,
                # Required, and never used: nothing is committed.
                "group.id": "tickhouse-ranges",
                "enable.auto.commit": "false",
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                # A range may end with what is no message: the end of a transaction. That there is nothing more is told
                # with the answer to the next fetch, for which the broker need not wait: what is wanted is there.
                "enable.partition.eof": "true",
                "fetch.wait.max.ms": "1",
                # An answer that takes longer than a request may (60 s) is never had: 140 kB/s are enough for one.
                "fetch.max.bytes": "8388608",
                # Fetched ahead for each partition, beside what is being worked on.
                "queued.max.messages.kbytes": "16384",
                "fetch.queue.backoff.ms": "20",
                # A broker sends a batch of messages whole, however large it is, and it must be taken.
                "receive.message.max.bytes": "2147483647",
                "check.crcs": "true",
            }
        )
        self._assigned: set[int] = set()
        self._next: dict[int, int] = {}
        """By partition: where the range that was read last ended."""
        self._reached: dict[int, int] = {}
        """By partition: up to where all records have come."""
        self._ahead: dict[int, list[Message]] = {}
        """By partition: records that have come and lie beyond the range."""
        self._ahead_bytes: dict[int, int] = {}

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()

    def rest(self) -> None:
        """Have nothing fetched until the next range, which is not there yet: looking for it keeps the broker busy."""
        for number in tuple(self._assigned):
            self._unassign(number)

    def read(self, first: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[list[Message]]:
        """All committed records of a range (see `OffsetRange`), some at a time; those of a partition in order.

        Raises TopicDamaged, KafkaException, also when records of the range are gone, and TimeoutError when nothing
        arrives for a minute; the reader is then of no more use.
        """
        wanted = {number: end for number, end in ends.items() if first.get(number, OFFSET_BEGINNING) < end}
        if wanted and not self._next:
            # Else the consumer asks where a topic's partitions are half a second after they are assigned.
            self._consumer.list_topics(self._topic, _SILENCE_SECONDS)
        inside: list[Message] = []
        for number, end in wanted.items():
            inside += self._turn_to(number, first.get(number, OFFSET_BEGINNING), end)
        held = size(inside)
        heard = time.monotonic()
        while any(self._reached[number] < end for number, end in wanted.items()):
            some = self._poll()
            held += size(some)
            ended = set()
            for message in some:
                place, offset = message.partition(), message.offset()
                if message.error() is not None or place is None or offset is None:
                    ended.add(self._note_end(message))
                    continue
                self._reached[place] = offset + 1
                if offset < wanted.get(place, 0):
                    inside.append(message)
                else:
                    self._ahead[place].append(message)
                    self._ahead_bytes[place] += size([message])
            self._let_go(wanted, ended)
            if some:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                raise TimeoutError(f"no message of {self._topic} has come for {_SILENCE_SECONDS:.0f} s")
            if len(inside) >= _MESSAGES or held >= _BYTES:
                yield from portions(inside)
                inside, held = [], 0
        yield from portions(inside)

    def _turn_to(self, number: int, first: int, end: int) -> list[Message]:
        """Have a partition's records come from an offset on, unless they do; returns what has come of the range."""
        if self._next.get(number) != first:
            self._unassign(number)
            self._ahead[number], self._ahead_bytes[number] = [], 0
            self._reached[number] = first
        self._next[number] = end
        ahead = self._ahead[number]
        cut = bisect_left(ahead, end, key=lambda message: message.offset() or 0)
        self._ahead[number] = ahead[cut:]
        self._ahead_bytes[number] -= size(ahead[:cut])
        if number not in self._assigned and self._reached[number] < end:
            self._consumer.incremental_assign([TopicPartition(self._topic, number, self._reached[number])])
            self._assigned.add(number)
        return ahead[:cut]

    def _let_go(self, wanted: Mapping[int, int], ended: Collection[int]) -> None:
        """Have no more come of partitions that are far beyond the range, as it would be kept, nor of those that end."""
        for number in tuple(self._assigned):
            many = len(self._ahead[number]) >= self._most_ahead or self._ahead_bytes[number] >= _BYTES
            enough = number in ended or many
            if enough and self._reached[number] >= wanted.get(number, 0):
                self._unassign(number)

    def _unassign(self, number: int) -> None:
        if number in self._assigned:
            self._consumer.incremental_unassign([TopicPartition(self._topic, number)])
            self._assigned.remove(number)

    def _poll(self) -> list[Message]:
        """What has come: waits for one, and takes with it what is there."""
        message = self._consumer.poll(_POLL_SECONDS)
        return [] if message is None else [message, *self._consumer.consume(_MESSAGES, 0)]

    def _note_end(self, message: Message) -> int:
        """Of what is no record: the end of a partition, whose number is returned, or an error."""
        error, number, offset = message.error(), message.partition(), message.offset()
        if error is not None and error.code() in _DAMAGE:
            raise TopicDamaged(message.topic(), number, offset, error.str())
        if number is None or offset is None or error is None or error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        self._reached[number] = max(self._reached[number], offset)
        return number
