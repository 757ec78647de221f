"""Exactly-once publishing to Kafka from a micro-batch.

Each partition of a micro-batch is one Kafka transaction: its messages, and the marker, which is a committed offset of a
consumer group of its own with metadata. It says up to where in the input the results are published. A repeated
micro-batch finds that it is published and publishes nothing. The group and the transactional id carry the query's id,
which lives and dies with the checkpoint, so a new checkpoint never takes an old one's marker for its own. Every
partition takes part in every micro-batch, with results or without, so that all markers say the same. The cumulative
counts travel in the metadata: they are exactly as often counted as the messages are published.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from pyspark import TaskContext
from pyspark.sql import DataFrame

from spark_jobs.framing import decode_blobs
from spark_jobs.sinks.existing_results import Existing, lacking
from tickhouse.contract.encoding import form_messages, packed_rows, portions
from tickhouse.contract.topology import COUNTS
from tickhouse.kafka.markers import NOTHING_PUBLISHED, Marker, MicroBatch, is_published, parse

_log = logging.getLogger(__name__)
Done = TypeVar("Done")
_TIMEOUT_SECONDS = 60.0
"""For an answer of the brokers; for sending, without a single message getting through."""
_OFFSETS_SECONDS = 15.0
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_ATTEMPTS = 4
_PAUSE_SECONDS = 0.1
_NOT_COORDINATED_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_AT_ONCE = 8
"""Partitions whose markers are read or written."""
_NONE_YET = -1
_RETRY_MS = 250
_DOUBT_SECONDS = 0.2
"""In less than this no request is tried again: the client waits `_RETRY_MS` before that, less a fifth at random."""
_TRANSACTION_MS = 900_000
"""The longest that brokers allow by default (`transaction.max.timeout.ms`): a transaction ends with its session, not by
the clock, however slow the link."""
_SHORT_TRANSACTION_MS = 60_000
"""Where the brokers' limit is lower."""
_MICRO_BATCH = "tickhouse.microBatch"
"""The local property by which tasks are told."""

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
    existing: Existing | None = None
    """Results that were there before the checkpoint was made: they are not published."""

    def __repr__(self) -> str:
        return f"KafkaTarget(topics={self.topics}, bootstrap={self.client.get('bootstrap.servers')})"


def publishing(results: DataFrame, target: KafkaTarget) -> DataFrame:
    """Publish each micro-batch of results (rows of `operators.RESULT_TYPE`) that has not been published before.

    The stream of reports on it, a row for each partition, is for `published`. Publishing is part of the stream's own
    plan, as a query on each micro-batch would have to be planned for each. The partitions must be the same whenever a
    micro-batch is repeated. When a task fails, nothing is lost: the micro-batch can be repeated.
    """
    return results.mapInArrow(_Publisher(target).publish, _REPORT_TYPE)


def published(reports: DataFrame, batch: MicroBatch) -> Published:
    """Carry out a micro-batch of what `publishing` made, and say what it came to."""
    reports.sparkSession.sparkContext.setLocalProperty(_MICRO_BATCH, batch.to_json())
    rows = reports.collect()
    return Published(
        {name: sum(row[name] for row in rows) for name in COUNTS},
        max((row["event_time"] for row in rows if row["event_time"] is not None), default=None),
    )


class Markers:
    """The markers of all partitions of a query."""

    def __init__(self, query_id: str, target: KafkaTarget, partitions: int) -> None:
        self._identities = [_identity(query_id, partition) for partition in range(partitions)]
        self._target = target

    def read(self) -> list[Marker | None]:
        """What they say, None for one that is not there. Raises MarkerMismatch, KafkaException."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._read, self._identities))

    def write(self, change: Callable[[Marker | None], Marker | None]) -> list[Marker | None]:
        """Write what `change` makes of each, unless that is None; returns what they say then.

        All earlier sessions are over with it. One that is written as it was is renewed: brokers count from the last
        time. Raises MarkerMismatch, KafkaException, NoAnswer.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(partial(self._write, change), self._identities))

    def _write(self, change: Callable[[Marker | None], Marker | None], identity: str) -> Marker | None:
        channel = _Channel(identity, self._target)
        try:
            return channel.replace(change)
        finally:
            channel.close()

    def _read(self, identity: str) -> Marker | None:
        settings = {
            "group.id": identity,
            "enable.auto.commit": "false",
            # The default waits for the end of a transaction that a killed worker has left open, for as long as brokers
            # keep it. What such a one would have written is no news: whoever publishes ends it first, and reads again.
            "isolation.level": "read_uncommitted",
        }
        group = Consumer({**self._target.client, **settings})
        try:
            return _read(group, self._target)
        finally:
            group.close()


class Owner:
    """Which query publishes to topics: kept as a committed offset, too, of the group `tickhouse-JOB`."""

    def __init__(self, job: str, target: KafkaTarget) -> None:
        self._group = {**target.client, "group.id": f"tickhouse-{job}", "enable.auto.commit": "false"}
        self._place = target.topics[0], 0

    def read(self) -> str | None:
        """The query's id; None when it is not known. Raises KafkaException."""
        group = Consumer(self._group)
        try:
            found = _committed(group, self._place)
        finally:
            group.close()
        return found.metadata or None if found.offset >= 0 else None

    def write(self, query_id: str) -> None:
        """Raises KafkaException."""
        group = Consumer(self._group)
        try:
            group.commit(offsets=[TopicPartition(*self._place, 0, query_id)], asynchronous=False)
        finally:
            group.close()


def _read(group: Consumer, target: KafkaTarget) -> Marker | None:
    found = _committed(group, (target.topics[0], 0))
    return None if found.offset < 0 else parse(found.offset, found.metadata)


def _committed(group: Consumer, place: tuple[str, int]) -> TopicPartition:
    """What is committed of a partition. Raises KafkaException."""
    deadline = time.monotonic() + _OFFSETS_SECONDS
    while True:
        try:
            (found,) = group.committed([TopicPartition(*place)], timeout=_TIMEOUT_SECONDS)
            if found.error is not None:
                raise KafkaException(found.error)
            return found
        except KafkaException as error:
            # A broker that has just started finds out which groups are its own.
            if error.args[0].code() not in _NOT_COORDINATED_YET or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


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
        batch = context.getLocalProperty(_MICRO_BATCH)
        assert query_id is not None
        assert batch is not None
        # All rows are read before the first attempt: a repeated attempt must see every one of them.
        rows = [row for some in batches for row in some.to_pylist()]
        channel = _Channel.of(_identity(query_id, context.partitionId()), self._target)
        counts = channel.publish(MicroBatch.from_json(batch), rows)
        event_time = max((row["event_time"] for row in rows if row["event_time"] is not None), default=None)
        yield pa.RecordBatch.from_pylist([{**counts, "event_time": event_time}], schema=_REPORT_SCHEMA)


class _Channel:
    """A transactional producer for one partition of one query, kept from micro-batch to micro-batch."""

    _open: dict[str, _Channel] = {}  # noqa: RUF012 -- per worker process
    _transaction_ms = _TRANSACTION_MS

    @classmethod
    def of(cls, identity: str, target: KafkaTarget) -> _Channel:
        if identity not in cls._open:
            cls._open[identity] = cls(identity, target)
        return cls._open[identity]

    def __init__(self, identity: str, target: KafkaTarget) -> None:
        self._identity = identity
        self._target = target
        self._group = Consumer(
            {
                **target.client,
                "group.id": identity,
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
            }
        )
        self._producer: Producer | None = None
        self._last_batch = _NONE_YET
        self._marker: Marker | None = None

    def publish(self, batch: MicroBatch, rows: list[dict[str, Any]]) -> dict[str, int]:
        """Publish rows once; returns the cumulative counts after them. Raises MarkerMismatch."""
        if batch.number != self._last_batch + 1:
            # The one before it was another worker's, which has fenced this session: to find out in a transaction that
            # fails costs a second, and a new session some milliseconds.
            self._producer = None
        self._last_batch = batch.number

        def once() -> dict[str, int]:
            if not is_published(self._marker, batch):
                marker = self._marker or NOTHING_PUBLISHED
                counts = {name: marker.counts[name] + sum(row[name] for row in rows) for name in COUNTS}
                self._transact(Marker(batch.number + 1, counts, batch.ends), rows)
            return (self._marker or NOTHING_PUBLISHED).counts

        return self._in_session(f"publishing micro-batch {batch.number} of", once)

    def replace(self, change: Callable[[Marker | None], Marker | None]) -> Marker | None:
        """See `Markers.write`."""

        def once() -> Marker | None:
            marker = change(self._marker)
            if marker is not None:
                self._transact(marker, [])
            return self._marker

        return self._in_session("writing the marker of", once)

    def close(self) -> None:
        """Let go of the brokers."""
        self._group.close()
        self._producer = None

    def _in_session(self, what: str, do: Callable[[], Done]) -> Done:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._producer is None:
                    self._begin_session()
                return do()
            except (KafkaException, NoAnswer) as error:
                # Whatever it was (a fenced session, a broker that went away), a new session starts by asking what
                # was committed, so trying again can neither repeat nor lose anything.
                self._producer = None
                if attempt == _ATTEMPTS:
                    raise
                _log.warning("%s %s, trying again: %s", what, self._identity, error)
        raise AssertionError("unreachable")

    def _begin_session(self) -> None:
        """Fence all earlier sessions of this identity, then read the marker: in this order nothing can change it."""
        producer = Producer(
            {
                **self._target.client,
                "transactional.id": self._identity,
                "transaction.timeout.ms": str(self._transaction_ms),
                # Of messages in a transaction this cannot be longer.
                "delivery.timeout.ms": str(self._transaction_ms),
                "partitioner": "murmur2_random",
                "retry.backoff.ms": str(_RETRY_MS),
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
        try:
            producer.init_transactions(_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
                self._transaction_ms = _SHORT_TRANSACTION_MS
            raise
        self._marker = _read(self._group, self._target)
        self._producer = producer

    def _transact(self, marker: Marker, rows: list[dict[str, Any]]) -> None:
        producer = self._producer
        assert producer is not None
        producer.begin_transaction()
        with_results = [row["results"] for row in rows if row["results"]]
        for position, topic in enumerate(self._target.topics):
            results: Iterable[tuple[str, bytes]] = (
                result for packed in with_results for result in decode_blobs(packed[position]).items()
            )
            existing = (self._target.existing or {}).get(topic)
            if existing:
                results = lacking(existing, results, packed_rows(topic))
            for portion in portions(topic, results):
                _produce(producer, topic, *form_messages(topic, portion))
        _send(producer)
        offset = TopicPartition(self._target.topics[0], 0, marker.number, marker.metadata())
        group = self._group.consumer_group_metadata()
        began = time.monotonic()
        _within(_OFFSETS_SECONDS, lambda: producer.send_offsets_to_transaction([offset], group, _OFFSETS_SECONDS))
        producer.commit_transaction(_TIMEOUT_SECONDS)
        self._marker = marker
        if time.monotonic() - began >= _DOUBT_SECONDS:
            # A request that was tried again may be on its way a second time, and would end the next transaction of this
            # session in the middle (KAFKA-17754): brokers refuse what comes from a session that another has followed.
            self._producer = None


def _send(producer: Producer) -> None:
    """Wait until all that is queued has arrived, for as long as some of it does.

    Raises NoAnswer when nothing has arrived for `_TIMEOUT_SECONDS`.
    """
    waiting, heard = len(producer), time.monotonic()
    while left := producer.flush(_LOOK_SECONDS):
        if left < waiting:
            waiting, heard = left, time.monotonic()
        elif time.monotonic() - heard > _TIMEOUT_SECONDS:
            raise NoAnswer(f"the brokers have taken none of {left} messages for {_TIMEOUT_SECONDS:.0f} s")


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
