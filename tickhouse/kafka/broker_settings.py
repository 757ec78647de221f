"""Settings of the brokers that endanger what is promised, and what to set them to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from tickhouse.contract.names import TICKS_TOPIC
from tickhouse.kafka.topics import quiet_admin

RENEW_SECONDS = 3_600.0
"""A marker of what is published that is not written is renewed so often."""
_REST_DAYS = 30
_DAY_MINUTES = 24 * 60
_DAY_MS = 24 * 3_600_000
_AHEAD_MS = 3_600_000


def hazards(client: Mapping[str, Any], timeout_seconds: float = 5.0) -> list[str]:
    """What to change at the brokers, in sentences; empty where all is well, or where they do not say.

    `client`: librdkafka settings. That needs the right to describe the cluster's and the topic's configuration.
    """
    admin = quiet_admin(client)
    try:
        brokers = admin.list_topics(timeout=timeout_seconds).brokers
    except KafkaException:
        return []
    wanted = [ConfigResource(ResourceType.BROKER, str(number)) for number in brokers]
    told = []
    for resource, future in admin.describe_configs([*wanted, ConfigResource(ResourceType.TOPIC, TICKS_TOPIC)]).items():
        try:
            entries = future.result(timeout_seconds)
        except (KafkaException, TimeoutError):
            continue  # not allowed, or no such topic yet
        values = {name: entry.value for name, entry in entries.items() if entry.value is not None}
        told += _of_broker(resource.name, values) if resource.name != TICKS_TOPIC else _of_topic(values)
    return told


def _of_broker(number: str, values: Mapping[str, str]) -> list[str]:
    minutes = int(values.get("offsets.retention.minutes", _REST_DAYS * _DAY_MINUTES))
    if minutes * 60 < 3 * RENEW_SECONDS:
        return [
            f"Broker {number} forgets after {minutes} minutes what is published (offsets.retention.minutes): set it to "
            f"{_REST_DAYS * _DAY_MINUTES}, or the streams stop and have to be rebuilt"
        ]
    if minutes < _REST_DAYS * _DAY_MINUTES:
        return [
            f"A stream that is stopped for more than {minutes / _DAY_MINUTES:g} days has to be rebuilt, as broker "
            f"{number} then forgets what is published: set offsets.retention.minutes to the longest time that streams "
            "may stand still"
        ]
    return []


def _of_topic(values: Mapping[str, str]) -> list[str]:
    if int(values.get("message.timestamp.after.max.ms", 0)) <= _DAY_MS:
        return []
    return [
        f"{TICKS_TOPIC} takes records with a time far ahead, and one from the year 2200 makes all ticks late that "
        f"follow it: set its message.timestamp.after.max.ms to {_AHEAD_MS}"
    ]
