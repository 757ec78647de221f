"""Exactly-once publishing to Kafka from a micro-batch.

Belongs here: transactions, the marker that makes a repeated micro-batch harmless, and what is counted with it. Does
not belong here: what the messages are (`messages`) or copies in Delta (`archive`).

Each partition of a micro-batch is one Kafka transaction: its messages, and as the committed offset of a consumer group
of its own the number of the next micro-batch. A repeated micro-batch finds its number passed and publishes nothing.
The group and the transactional id carry the query's id, which lives and dies with the checkpoint, so a new checkpoint
never takes an old one's marker for its own. The cumulative counts travel as the marker's metadata: they are exactly as
often counted as the messages are published.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from pyspark import TaskContext
from pyspark.sql import DataFrame

from spark_jobs.blobs import decode_blobs
from spark_jobs.jobs import COUNTS
from spark_jobs.messages import form_messages, portions

_log = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 60.0
_OFFSETS_SECONDS = 15.0
_GRACE_SECONDS = 5.0
_ATTEMPTS = 4
_NO_MARKER = -1

_REPORT_TYPE = ", ".join(f"{name} bigint" for name in (*COUNTS, "event_time"))
_REPORT_SCHEMA = pa.schema([(name, pa.int64()) for name in (*COUNTS, "event_time")])


class Published(NamedTuple):
    """What a micro-batch came to."""

    counts: dict[str, int]
    """`COUNTS`, cumulative since the checkpoint began."""
    event_time: int | None
    """The largest timestamp of its ticks in milliseconds; None without ticks."""


class NoAnswer(Exception):
    """A call to the Kafka client has not come back in the time that it was given."""


class KafkaTarget(NamedTuple):
    """Where to publish: `topics` in the order of the results in a result row."""

    topics: tuple[str, ...]
    client: dict[str, str]
    """librdkafka settings for reaching the brokers, the password among them."""

    def __repr__(self) -> str:
        return f"KafkaTarget(topics={self.topics}, bootstrap={self.client.get('bootstrap.servers')})"


def publishing(results: DataFrame, target: KafkaTarget) -> DataFrame:
    """Publish each micro-batch of results (rows of `operators.RESULT_TYPE`) that has not been published before.

    The stream of reports on it, a row for each partition, is for `published`. Publishing is part of the stream's own
    plan, as a query on each micro-batch would have to be planned for each. The partitions must be the same whenever a
    micro-batch is repeated. When a task fails, nothing is lost: the micro-batch can be repeated.
    """
    return results.mapInArrow(_Publisher(target).publish, _REPORT_TYPE)


def published(reports: DataFrame) -> Published:
    """Carry out a micro-batch of what `publishing` made, and say what it came to."""
    rows = reports.collect()
    return Published(
        {name: sum(row[name] for row in rows) for name in COUNTS},
        max((row["event_time"] for row in rows if row["event_time"] is not None), default=None),
    )


def next_unpublished(query_id: str, target: KafkaTarget, partitions: int) -> int:
    """The number of the first micro-batch of which nothing has been published, as the markers say.

    Raises KafkaException when the brokers do not answer.
    """
    marker = TopicPartition(target.topics[0], 0)
    furthest = 0
    for partition in range(partitions):
        group = Consumer({**target.client, "group.id": _identity(query_id, partition), "enable.auto.commit": "false"})
        try:
            (found,) = group.committed([marker], timeout=_OFFSETS_SECONDS)
        finally:
            group.close()
        if found.error is not None:
            raise KafkaException(found.error)
        furthest = max(furthest, found.offset)
    return furthest


def _identity(query_id: str, partition: int) -> str:
    """The name of a partition's marker, and of its transactions."""
    return f"tickhouse-{query_id}-{partition}"


class _Publisher:
    """The task side: plain data that Spark sends to its workers."""

    def __init__(self, target: KafkaTarget) -> None:
        self._target = target

    def publish(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        query_id = context.getLocalProperty("sql.streaming.queryId")
        batch = context.getLocalProperty("streaming.sql.batchId")
        assert query_id is not None
        assert batch is not None
        # All rows are read before the first attempt: a repeated attempt must see every one of them.
        rows = [row for some in batches for row in some.to_pylist()]
        channel = _Channel.of(_identity(query_id, context.partitionId()), self._target)
        counts = channel.publish(int(batch), rows)
        event_time = max((row["event_time"] for row in rows if row["event_time"] is not None), default=None)
        yield pa.RecordBatch.from_pylist([{**counts, "event_time": event_time}], schema=_REPORT_SCHEMA)


class _Channel:
    """A transactional producer for one partition of one query, kept from micro-batch to micro-batch."""

    _open: dict[str, _Channel] = {}  # noqa: RUF012 -- per worker process

    @classmethod
    def of(cls, identity: str, target: KafkaTarget) -> _Channel:
        if identity not in cls._open:
            cls._open[identity] = cls(identity, target)
        return cls._open[identity]

    def __init__(self, identity: str, target: KafkaTarget) -> None:
        self._identity = identity
        self._target = target
        self._marker = TopicPartition(target.topics[0], 0)
        self._group = Consumer(
            {
                **target.client,
                "group.id": identity,
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
            }
        )
        self._producer: Producer | None = None
        self._last_batch = _NO_MARKER
        self._next_batch = _NO_MARKER
        self._counts = dict.fromkeys(COUNTS, 0)

    def publish(self, batch: int, rows: list[dict[str, Any]]) -> dict[str, int]:
        """Publish rows once; returns the cumulative counts after them."""
        if batch != self._last_batch + 1:
            # The one before it was another worker's, which has fenced this session: to find out in a transaction that
            # fails costs a second, and a new session some milliseconds.
            self._producer = None
        self._last_batch = batch
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._producer is None:
                    self._begin_session()
                if rows and self._next_batch <= batch:
                    self._transact(batch, rows)
                return self._counts
            except (KafkaException, NoAnswer) as error:
                # Whatever it was (a fenced session, a broker that went away), a new session starts by asking what
                # was committed, so trying again can neither repeat nor lose anything.
                self._producer = None
                if attempt == _ATTEMPTS:
                    raise
                _log.warning("publishing micro-batch %d of %s, trying again: %s", batch, self._identity, error)
        raise AssertionError("unreachable")

    def _begin_session(self) -> None:
        """Fence all earlier sessions of this identity, then read the marker: in this order nothing can change it."""
        producer = Producer(
            {
                **self._target.client,
                "transactional.id": self._identity,
                "partitioner": "murmur2_random",
                "linger.ms": "5",
                "compression.type": "lz4",
                # What is queued is at most a micro-batch, which is in memory already.
                "queue.buffering.max.messages": "0",
                "queue.buffering.max.kbytes": "2147483647",
            }
        )
        # The first answer comes from the address that was given, the second from a broker that has a name of its own.
        # Without a connection to such a one a client that is to begin looks again half a second later.
        for _ in range(2):
            producer.list_topics(self._target.topics[0], _TIMEOUT_SECONDS)
        producer.init_transactions(_TIMEOUT_SECONDS)
        (marker,) = self._group.committed([self._marker], timeout=_TIMEOUT_SECONDS)
        if marker.error is not None:
            raise KafkaException(marker.error)
        self._next_batch = marker.offset if marker.offset >= 0 else _NO_MARKER
        self._counts = json.loads(marker.metadata or "{}") if marker.offset >= 0 else dict.fromkeys(COUNTS, 0)
        self._producer = producer

    def _transact(self, batch: int, rows: list[dict[str, Any]]) -> None:
        producer = self._producer
        assert producer is not None
        counts = {name: self._counts[name] + sum(row[name] for row in rows) for name in COUNTS}
        producer.begin_transaction()
        with_results = [row["results"] for row in rows if row["results"]]
        for position, topic in enumerate(self._target.topics):
            results = (result for packed in with_results for result in decode_blobs(packed[position]).items())
            for portion in portions(topic, results):
                _produce(producer, topic, *form_messages(topic, portion))
        marker = TopicPartition(self._marker.topic, self._marker.partition, batch + 1, json.dumps(counts))
        group = self._group.consumer_group_metadata()
        _within(_OFFSETS_SECONDS, lambda: producer.send_offsets_to_transaction([marker], group, _OFFSETS_SECONDS))
        producer.commit_transaction(_TIMEOUT_SECONDS)
        self._next_batch, self._counts = batch + 1, counts


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Make a call that may never return, and raise NoAnswer if it has not after `seconds` and some grace.

    librdkafka's `send_offsets_to_transaction` ignores its timeout when the broker went away in the middle of a
    transaction (librdkafka issue 5456). The call is then abandoned with the producer that it belongs to.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except KafkaException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds + _GRACE_SECONDS)
    if thread.is_alive():
        raise NoAnswer(f"the Kafka client has not answered within {seconds + _GRACE_SECONDS:.0f} s")
    if failures:
        raise failures[0]


def _produce(producer: Producer, topic: str, keys: list[str], values: list[bytes]) -> None:
    """Queue messages in their order, all or (KafkaException) none that counts: the transaction is then given up."""
    messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
    refused = len(messages) - producer.produce_batch(topic, messages)
    if refused:
        raise KafkaException(KafkaError(KafkaError._QUEUE_FULL, f"{refused} messages for {topic} were not taken"))
