"""What the brokers have of the topics that a query reads."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tickhouse.kafka.access import RefusalListener

_PAUSE_SECONDS = 0.5
_COUNT_SECONDS = 30.0
_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
Answer = TypeVar("Answer")
_quiet = logging.getLogger("tickhouse.kafka.topics.client")
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


def firsts(topic: Topic) -> dict[int, int]:
    """The first offsets that a topic has."""
    return {number: extent.first for number, extent in topic.partitions.items()}


class TopicsUnknown(Exception):
    """The brokers have not said what they have; the message says why."""


def quiet_admin(client: Mapping[str, Any]) -> AdminClient:
    """For asking the brokers, with librdkafka settings; what it cannot reach it does not log by itself."""
    return AdminClient(dict(client), logger=_quiet)


def look(names: Iterable[str], client: Mapping[str, Any], timeout_seconds: float) -> dict[str, Topic]:
    """The topics of these names that exist. `client`: librdkafka settings. Raises TopicsUnknown."""
    wanted = list(names)
    asking = _Asking(wanted, client)
    return asking.answer(timeout_seconds, lambda seconds: _described(asking.admin, wanted, seconds))


class _Asking:
    """Questions to the brokers about topics of certain names, each asked until there is an answer."""

    def __init__(self, names: Sequence[str], client: Mapping[str, Any]) -> None:
        self._names = names
        self._refused = RefusalListener()
        self.admin = quiet_admin({**client, "socket.timeout.ms": 10_000, "error_cb": self._refused})

    def answer(self, timeout_seconds: float, ask: Callable[[float], Answer]) -> Answer:
        """What `ask` returns, which is given how many seconds are left. Raises TopicsUnknown."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return ask(max(1.0, deadline - time.monotonic()))
            except (KafkaException, TimeoutError) as error:
                self.admin.poll(0)  # tells the listener what has been noted meanwhile
                if self._refused.sentence is not None:
                    raise TopicsUnknown(self._refused.sentence) from error
                # A broker that has just come up does not know its partitions' leaders yet.
                if time.monotonic() + _PAUSE_SECONDS > deadline:
                    what = f"what it has of {', '.join(self._names)}"
                    raise TopicsUnknown(f"Kafka does not say {what}: {error}") from error
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


class TopicWatch:
    """How far topics reach, asked again and again: offsets by topic and partition.

    Partitions that are added are noticed within half a minute. `client`: librdkafka settings. What is asked raises
    TopicsUnknown when there is no answer for `patience_seconds`.
    """

    def __init__(self, topics: Sequence[str], client: Mapping[str, Any], patience_seconds: float = 60.0) -> None:
        self._topics = topics
        self._asking = _Asking(topics, client)
        self._patience = patience_seconds
        self._numbers: dict[str, list[int]] = {}
        self._counted = -math.inf

    def first(self) -> dict[str, dict[int, int]]:
        """The first offsets that there are."""
        return self._asked(_EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def committed(self) -> dict[str, dict[int, int]]:
        """How far a `read_committed` consumer can read."""
        return self._asked(_LATEST, IsolationLevel.READ_COMMITTED)

    def written(self) -> dict[str, dict[int, int]]:
        """How far messages go, those of unfinished transactions among them."""
        return self._asked(_LATEST, IsolationLevel.READ_UNCOMMITTED)

    def _asked(self, which: OffsetSpec, isolation: IsolationLevel) -> dict[str, dict[int, int]]:
        def ask(timeout_seconds: float) -> dict[str, dict[int, int]]:
            self._count(timeout_seconds)
            return {
                topic: _offsets(self._asking.admin, topic, numbers, which, timeout_seconds, isolation)
                for topic, numbers in self._numbers.items()
            }

        return self._asking.answer(self._patience, ask)

    def _count(self, timeout_seconds: float) -> None:
        """See to it that the partitions are known as they were half a minute ago, at least."""
        if time.monotonic() - self._counted < _COUNT_SECONDS:
            return
        for topic in self._topics:
            found = self._asking.admin.list_topics(topic, timeout_seconds).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            self._numbers[topic] = sorted(found.partitions)
        self._counted = time.monotonic()


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
