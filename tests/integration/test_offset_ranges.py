"""Ranges of offsets read from a real broker: what is committed, all of it and no more."""

from __future__ import annotations

import itertools
import uuid

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from orchestration.local.broker import create_topics
from spark_jobs.offset_ranges import OffsetRange, read, record_batch, values

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(broker: str) -> str:
    name = f"ranges-{uuid.uuid4()}"
    create_topics(broker, (name,), partitions=2)
    return name


def transact(broker: str, topic: str, texts: list[str], *, commit: bool = True) -> None:
    """A transaction on both partitions."""
    producer = Producer({"bootstrap.servers": broker, "transactional.id": f"{topic}-{uuid.uuid4()}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition, text in itertools.product((0, 1), texts):
        producer.produce(topic, f"{text}{partition}", partition=partition)
    producer.flush(30)
    producer.commit_transaction(30) if commit else producer.abort_transaction(30)


def told(broker: str, wanted: OffsetRange) -> list[str]:
    parts = [values(messages).to_pylist() for messages in read(wanted, {"bootstrap.servers": broker})]
    return sorted(value.decode() for part in parts for value in part)


def test_ends_of_transactions_and_given_up_messages_are_no_records(broker: str, topic: str) -> None:
    transact(broker, topic, ["a", "b"])  # offsets 0, 1, and 2 for the end
    transact(broker, topic, ["x"], commit=False)  # 3, 4
    transact(broker, topic, ["c"])  # 5, 6
    assert told(broker, OffsetRange(topic, {}, {0: 7, 1: 7})) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert told(broker, OffsetRange(topic, {0: 1, 1: 5}, {0: 5, 1: 7})) == ["b0", "c1"]
    assert told(broker, OffsetRange(topic, {0: 3}, {0: 5})) == [], "nothing but what was given up"
    assert told(broker, OffsetRange(topic, {0: 5, 1: 2}, {0: 5, 1: 2})) == [], "nothing at all"
    assert told(broker, OffsetRange(topic, {1: 0}, {0: 1, 1: 1})) == ["a0", "a1"], "a partition that is new"


def test_records_are_as_spark_reads_them(broker: str, topic: str) -> None:
    transact(broker, topic, ["a"])
    (messages,) = read(OffsetRange(topic, {}, {1: 2}), {"bootstrap.servers": broker})
    (row,) = record_batch(messages).to_pylist()
    assert (row["topic"], row["partition"], row["offset"], row["value"]) == (topic, 1, 0, b"a1")
    assert row["timestamp"].timestamp() * 1_000 == pytest.approx(messages[0].timestamp()[1])


def test_records_that_are_gone_are_no_end_of_it(broker: str, topic: str) -> None:
    transact(broker, topic, ["a", "b", "c"])
    admin = AdminClient({"bootstrap.servers": broker})
    (removed,) = admin.delete_records([TopicPartition(topic, 0, 2)]).values()
    removed.result(30)
    with pytest.raises(KafkaException, match="_AUTO_OFFSET_RESET"):
        told(broker, OffsetRange(topic, {0: 1}, {0: 4}))
    assert told(broker, OffsetRange(topic, {}, {0: 4})) == ["c0"], "what has no beginning begins with what is there"
