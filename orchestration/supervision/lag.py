"""How far the topics have got."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from tickhouse.contract.topology import JobSpec
from tickhouse.kafka.access import RefusalListener
from tickhouse.kafka.offsets import numbered

Offsets = dict[str, dict[int, int]]
"""Topic to partition to offset."""

# What the client says of a broker that is away is told by KafkaAway, once, instead of on standard error for ever.
_quiet = logging.getLogger("orchestration.supervision.lag.client")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class KafkaAway(RuntimeError):
    """The broker does not answer; the text says which."""


class KafkaRefuses(KafkaAway):
    """The broker answers, and there is no way in; the text says why, and what to check."""


class Topics:
    """The topics behind `bootstrap`, by one connection that the client keeps and renews. Safe to use from threads."""

    def __init__(self, bootstrap: str, timeout_seconds: float = 2.0, security: Mapping[str, str] | None = None) -> None:
        """`security`: further settings of librdkafka (`tickhouse.kafka.access.librdkafka_security`)."""
        self.bootstrap = bootstrap
        self._timeout = timeout_seconds
        self._refused = RefusalListener()
        client: dict[str, Any] = {"bootstrap.servers": bootstrap, "socket.timeout.ms": 5_000, **(security or {})}
        client["error_cb"] = self._refused
        self._admin = AdminClient(client, logger=_quiet)

    def end_offsets(self, topics: Iterable[str]) -> Offsets:
        """The next offset that a `read_committed` reader will get to, for each partition of the topics that exist.

        Raises KafkaAway, KafkaRefuses.
        """
        self._refused.sentence = None
        try:
            known = self._admin.list_topics(timeout=self._timeout).topics
            wanted = {
                TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
                for topic in topics
                if topic in known
                for partition in known[topic].partitions
            }
            if not wanted:
                return {}
            futures = self._admin.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=self._timeout
            )
            ends: Offsets = {}
            for position, future in futures.items():
                ends.setdefault(position.topic, {})[position.partition] = future.result(self._timeout).offset
        except (KafkaException, TimeoutError) as error:
            self._admin.poll(0)  # tells what the client has noted meanwhile
            if self._refused.sentence is not None:
                raise KafkaRefuses(self._refused.sentence) from error
            raise KafkaAway(f"Kafka at {self.bootstrap} does not answer") from error
        return ends


def lag(ends: Offsets, consumed: Offsets, topics: Iterable[str]) -> int | None:
    """Messages of `topics` not yet consumed; None when a topic's end is not known. What was never read counts whole."""
    total = 0
    for topic in topics:
        if topic not in ends:
            return None
        read = consumed.get(topic, {})
        total += sum(max(0, end - read.get(partition, 0)) for partition, end in ends[topic].items())
    return total


def offsets_of(heartbeat: Mapping[str, Any], query: str) -> Offsets:
    """Next offsets to read of a query, by topic and partition, as its heartbeat says; empty when it does not."""
    return numbered(heartbeat.get("queries", {}).get(query, {}).get("offsets", {}))


def stream_lag(spec: JobSpec, heartbeat: Mapping[str, Any], ends: Offsets) -> int | None:
    """Messages that wait for a job's computation; None when unknown."""
    return lag(ends, offsets_of(heartbeat, spec.name), spec.inputs) if heartbeat else None


def archive_lag(spec: JobSpec, heartbeat: Mapping[str, Any], ends: Offsets) -> int | None:
    """Messages of a job's output topics that are not in its tables yet; None when unknown or when it has none."""
    lags = [lag(ends, offsets_of(heartbeat, table), (topic,)) for table, topic in spec.archives.items()]
    known = [value for value in lags if value is not None]
    return sum(known) if heartbeat and known and len(known) == len(lags) else None
