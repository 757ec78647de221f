"""Ranges of offsets read from a real broker: what is committed, all of it and no more."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from orchestration.local.broker import create_topics
from tests.broker_topics import transact
from tickhouse.kafka.range_reader import OffsetRange, RangeReader, read, record_batch, values

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(broker: str) -> str:
    name = f"ranges-{uuid.uuid4()}"
    create_topics(broker, (name,), partitions=2)
    return name


@pytest.fixture
def reader(broker: str, topic: str) -> Iterator[RangeReader]:
    found = RangeReader(topic, {"bootstrap.servers": broker})
    yield found
    found.close()


def texts(parts: Iterator[list[Message]]) -> list[str]:
    return sorted(value.decode() for messages in parts for value in values(messages).to_pylist())


def told(broker: str, wanted: OffsetRange) -> list[str]:
    return texts(read(wanted, {"bootstrap.servers": broker}))


def test_ends_of_transactions_and_given_up_messages_are_no_records(broker: str, topic: str) -> None:
    transact(broker, topic, ["a#", "b#"])  # offsets 0, 1, and 2 for the end
    transact(broker, topic, ["x#"], commit=False)  # 3, 4
    transact(broker, topic, ["c#"])  # 5, 6
    assert told(broker, OffsetRange(topic, {}, {0: 7, 1: 7})) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert told(broker, OffsetRange(topic, {0: 1, 1: 5}, {0: 5, 1: 7})) == ["b0", "c1"]
    assert told(broker, OffsetRange(topic, {0: 3}, {0: 5})) == [], "nothing but what was given up"
    assert told(broker, OffsetRange(topic, {0: 5, 1: 2}, {0: 5, 1: 2})) == [], "nothing at all"
    assert told(broker, OffsetRange(topic, {1: 0}, {0: 1, 1: 1})) == ["a0", "a1"], "a partition that is new"


def test_records_are_read_with_all_that_the_rule_asks_for(broker: str, topic: str) -> None:
    transact(broker, topic, ["a#"])
    (messages,) = read(OffsetRange(topic, {}, {1: 2}), {"bootstrap.servers": broker})
    (row,) = record_batch(messages).to_pylist()
    assert (row["topic"], row["partition"], row["offset"], row["value"]) == (topic, 1, 0, b"a1")
    assert (row["timestamp"], row["key"]) == (messages[0].timestamp()[1], None)


def test_records_that_are_gone_are_no_end_of_it(broker: str, topic: str) -> None:
    transact(broker, topic, ["a#", "b#", "c#"])
    admin = AdminClient({"bootstrap.servers": broker})
    (removed,) = admin.delete_records([TopicPartition(topic, 0, 2)]).values()
    removed.result(30)
    with pytest.raises(KafkaException, match="_AUTO_OFFSET_RESET"):
        told(broker, OffsetRange(topic, {0: 1}, {0: 4}))
    assert told(broker, OffsetRange(topic, {}, {0: 4})) == ["c0"], "what has no beginning begins with what is there"


def test_ranges_go_on_where_the_one_before_ended(broker: str, topic: str, reader: RangeReader) -> None:
    transact(broker, topic, ["a#", "b#", "c#"])  # offsets 0, 1, 2, and 3 for the end
    assert texts(reader.read({}, {0: 1, 1: 2})) == ["a0", "a1", "b1"]
    assert texts(reader.read({0: 1, 1: 2}, {0: 2, 1: 2})) == ["b0"], "what has come already, and no more of it"
    transact(broker, topic, ["x#"], commit=False)  # 4, 5
    transact(broker, topic, ["d#"])  # 6, 7
    assert texts(reader.read({0: 2, 1: 2}, {0: 4, 1: 4})) == ["c0", "c1"], "an end of a transaction is no record"
    assert texts(reader.read({0: 4, 1: 4}, {0: 6, 1: 6})) == [], "nothing but what was given up"
    assert texts(reader.read({0: 6, 1: 6}, {0: 8, 1: 8})) == ["d0", "d1"]


def test_a_range_may_be_read_again_or_lie_elsewhere(broker: str, topic: str, reader: RangeReader) -> None:
    transact(broker, topic, ["a#", "b#", "c#"])
    assert texts(reader.read({0: 1}, {0: 2})) == ["b0"]
    assert texts(reader.read({0: 1}, {0: 2})) == ["b0"], "as after a restart"
    assert texts(reader.read({0: 0, 1: 2}, {0: 3, 1: 4})) == ["a0", "b0", "c0", "c1"]


def test_what_comes_while_none_is_wanted_is_kept_for_the_next(broker: str, topic: str, reader: RangeReader) -> None:
    transact(broker, topic, ["a#"], partitions=[0])
    assert texts(reader.read({}, {0: 2})) == ["a0"]
    transact(broker, topic, ["b#"], partitions=[0])
    transact(broker, topic, ["c#"], partitions=[1])
    assert texts(reader.read({0: 2}, {0: 2, 1: 2})) == ["c1"]
    assert texts(reader.read({0: 2, 1: 2}, {0: 4, 1: 2})) == ["b0"]


def test_after_a_rest_it_goes_on_where_it_was(broker: str, topic: str, reader: RangeReader) -> None:
    transact(broker, topic, ["a#", "b#"])  # offsets 0, 1, and 2 for the end
    assert texts(reader.read({}, {0: 1, 1: 3})) == ["a0", "a1", "b1"]
    reader.rest()
    transact(broker, topic, ["c#"])
    assert texts(reader.read({0: 1, 1: 3}, {0: 5, 1: 5})) == ["b0", "c0", "c1"], "b0 may have come before the rest"
    reader.rest()
    assert texts(reader.read({0: 5, 1: 5}, {0: 5, 1: 5})) == []
    assert texts(reader.read({0: 3, 1: 4}, {0: 4, 1: 5})) == ["c0"], "as after a restart"


def test_a_partition_that_is_added_is_read_from_its_beginning(broker: str, topic: str, reader: RangeReader) -> None:
    transact(broker, topic, ["a#"])
    assert texts(reader.read({}, {0: 2, 1: 2})) == ["a0", "a1"]
    admin = AdminClient({"bootstrap.servers": broker})
    (added,) = admin.create_partitions([NewPartitions(topic, 3)]).values()
    added.result(30)
    transact(broker, topic, ["b#"], partitions=[2])
    assert texts(reader.read({0: 2, 1: 2}, {0: 2, 1: 2, 2: 2})) == ["b2"]
