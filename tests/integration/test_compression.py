"""What other producers compress, each in its own way, is read by both clients of the environment."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer
from kafka import KafkaConsumer  # type: ignore[import-untyped]

from orchestration.local.broker import create_topics
from tickhouse.kafka.range_reader import OffsetRange, read

pytestmark = pytest.mark.integration

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LINES = 10


def test_every_codec_is_read(broker: str) -> None:
    topic = f"codecs-{uuid.uuid4()}"
    create_topics(broker, (topic,), partitions=len(CODECS))
    sent = sorted(codec.encode() * 100 for codec in CODECS for _ in range(LINES))  # long enough to be worth compressing
    for partition, codec in enumerate(CODECS):
        producer = Producer({"bootstrap.servers": broker, "compression.type": codec, "linger.ms": 50})
        for _ in range(LINES):
            producer.produce(topic, codec.encode() * 100, partition=partition)
        producer.flush(30)
    wanted = OffsetRange(topic, {}, dict.fromkeys(range(len(CODECS)), LINES))
    found = [message.value() or b"" for messages in read(wanted, {"bootstrap.servers": broker}) for message in messages]
    assert sorted(found) == sent
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        consumer_timeout_ms=10_000,
    )
    assert sorted(next(consumer).value for _ in sent) == sent
    consumer.close()
