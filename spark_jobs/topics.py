"""What the brokers have of the topics that a query reads.

Belongs here: asking for a topic's identity and the offsets it still has. Does not belong here: comparing them with a
checkpoint (`gaps`), reading messages (`run`) or publishing them (`sinks`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from spark_jobs.kafka_access import RefusalListener

_PAUSE_SECONDS = 0.5
_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_quiet = logging.getLogger("spark_jobs.topics.client")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Extent(NamedTuple):
    """The offsets that a partition has: `first` up to, not including, `end`."""

    first: int
    end: int


class Topic(NamedTuple):
    """A topic as it is now."""

    topic_id: str
    """Given by the brokers: a topic that was deleted and created again has another one."""
    partitions: dict[int, Extent]


class TopicsUnknown(Exception):
    """The brokers have not said what they have; the message says why."""


def quiet_admin(client: Mapping[str, Any]) -> AdminClient:
    """For asking the brokers, with librdkafka settings; what it cannot reach it does not log by itself."""
    return AdminClient(dict(client), logger=_quiet)


def look(names: Iterable[str], client: Mapping[str, str], timeout_seconds: float) -> dict[str, Topic]:
    """The topics of these names that exist. `client`: librdkafka settings. Raises TopicsUnknown."""
    wanted = list(names)
    refused = RefusalListener()
    admin = quiet_admin({**client, "socket.timeout.ms": 10_000, "error_cb": refused})
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return _described(admin, wanted, max(1.0, deadline - time.monotonic()))
        except (KafkaException, TimeoutError) as error:
            admin.poll(0)  # tells the listener what has been noted meanwhile
            if refused.sentence is not None:
                raise TopicsUnknown(refused.sentence) from error
            # A broker that has just come up does not know its partitions' leaders yet.
            if time.monotonic() + _PAUSE_SECONDS > deadline:
                raise TopicsUnknown(f"Kafka does not say what it has of {', '.join(wanted)}: {error}") from error
        time.sleep(_PAUSE_SECONDS)


def _described(admin: AdminClient, names: list[str], timeout_seconds: float) -> dict[str, Topic]:
    found: dict[str, Topic] = {}
    described = admin.describe_topics(TopicCollection(names), request_timeout=timeout_seconds)
    for name, future in described.items():
        try:
            description = future.result(timeout_seconds)
        except KafkaException as error:
            if error.args[0].code() in _ABSENT:
                continue
            raise
        numbers = [partition.id for partition in description.partitions]
        first = _offsets(admin, name, numbers, _EARLIEST, timeout_seconds)
        end = _offsets(admin, name, numbers, _LATEST, timeout_seconds)
        extents = {number: Extent(first[number], end[number]) for number in numbers}
        found[name] = Topic(str(description.topic_id), extents)
    return found


def committed_ends(admin: AdminClient, topic: str, partitions: list[int], timeout_seconds: float) -> dict[int, int]:
    """How far a `read_committed` consumer can read each partition of a topic.

    Raises KafkaException or TimeoutError when the brokers do not say.
    """
    return _offsets(admin, topic, partitions, _LATEST, timeout_seconds, IsolationLevel.READ_COMMITTED)


def _offsets(
    admin: AdminClient,
    topic: str,
    partitions: list[int],
    which: OffsetSpec,
    timeout_seconds: float,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    wanted = {TopicPartition(topic, partition): which for partition in partitions}
    futures = admin.list_offsets(wanted, request_timeout=timeout_seconds, isolation_level=isolation)
    return {position.partition: future.result(timeout_seconds).offset for position, future in futures.items()}
