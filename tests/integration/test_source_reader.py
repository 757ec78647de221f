"""The source of a computing query on a real broker, called as Spark calls it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]
from pyspark.sql.streaming.datasource import ReadAllAvailable

from orchestration.local.broker import create_topics
from spark_jobs.jobs.prices import classify
from spark_jobs.sources import topic_reader
from spark_jobs.sources.packing import pack, unpack
from spark_jobs.sources.source_config import Reading
from spark_jobs.sources.source_reader import SourceReader
from spark_jobs.sources.topic_reader import CutOff
from tests.broker_topics import remove_topics, transact
from tickhouse.contract.decoding import read_results, table_rows
from tickhouse.contract.encoding import form_messages, pack_results
from tickhouse.contract.names import MOVING_TOPIC, TICKS_TOPIC
from tickhouse.kafka.offsets import Offsets, numbered
from tickhouse.kafka.range_reader import OffsetRange, record_batch, size
from tickhouse.kafka.range_reader import read as read_range
from tickhouse.kafka.topics import TopicWatch

pytestmark = pytest.mark.integration

UNITS_PER_PRICE = 10**8

SECRET = "not to be shown"  # pragma: allowlist secret
Ends = dict[str, dict[str, int]]


@pytest.fixture
def topics(broker: str) -> Iterator[str]:
    remove_topics(broker, [TICKS_TOPIC])
    create_topics(broker, [TICKS_TOPIC], partitions=2)
    yield broker
    remove_topics(broker, [TICKS_TOPIC])


def reader(broker: str, largest_batch: int = 1_000, until: Offsets | None = None) -> SourceReader:
    """As a worker of Spark's gets it."""
    client = {"bootstrap.servers": broker, "sasl.password": SECRET}  # pragma: allowlist secret
    made = SourceReader(Reading((TICKS_TOPIC,), client, largest_batch, 1, until=until))
    copied = pickle.loads(pickle.dumps(made))
    assert isinstance(copied, SourceReader)
    return copied


def ticks(*prices: int) -> list[str]:
    """Messages of a symbol for each partition."""
    return [
        f'{{"symbol": "P#", "price": {price}, "timestamp": "2026-01-01T00:00:{price:02}.000+00:00"}}'
        for price in prices
    ]


def ends(first: int, second: int) -> Ends:
    return {TICKS_TOPIC: {"0": first, "1": second}}


def after(source: SourceReader, start: Ends) -> Ends:
    """Where the micro-batch ends that begins at `start`."""
    return source.latestOffset(start, ReadAllAvailable())


def read(source: SourceReader, start: Ends, end: Ends) -> dict[str, list[int]]:
    """The prices of each symbol in a micro-batch."""
    assert len(source.partitions(start, end)) == 1
    rows = pa.Table.from_batches(source.getCache(start, end))
    found = unpack(rows.column("content").to_pylist()).ticks
    return {symbol: [price // UNITS_PER_PRICE for price in packed.prices] for symbol, packed in found.items()}


def test_a_query_reads_what_is_committed_batch_by_batch(topics: str) -> None:
    source = reader(topics)
    assert source.initialOffset() == after(source, ends(0, 0)) == ends(0, 0)
    transact(topics, TICKS_TOPIC, ticks(1, 2))
    transact(topics, TICKS_TOPIC, ticks(9), commit=False)
    assert after(source, ends(0, 0)) == ends(5, 5)
    assert read(source, ends(0, 0), ends(5, 5)) == {"P0": [1, 2], "P1": [1, 2]}
    assert after(source, ends(5, 5)) == ends(5, 5), "nothing new"
    transact(topics, TICKS_TOPIC, ticks(3), partitions=[1])
    assert after(source, ends(5, 5)) == ends(5, 7)
    assert read(source, ends(5, 5), ends(5, 7)) == {"P1": [3]}
    source.stop()


def test_a_backlog_is_read_in_the_largest_batches(topics: str) -> None:
    source = reader(topics, largest_batch=4)
    transact(topics, TICKS_TOPIC, ticks(1, 2, 3, 4, 5))
    start, found = source.initialOffset(), []
    while (end := after(source, start)) != start:
        found.append(read(source, start, end))
        start = end
    assert start == ends(6, 6)
    assert found == [{"P0": [1, 2], "P1": [1, 2]}, {"P0": [3, 4], "P1": [3, 4]}, {"P0": [5], "P1": [5]}]
    source.stop()


def test_a_planned_batch_is_read_again_and_the_query_goes_on_after_it(topics: str) -> None:
    transact(topics, TICKS_TOPIC, ticks(1, 2, 3))
    # What Spark does with what its checkpoint says: batch 0 is done, batch 1 was planned.
    source = reader(topics)
    assert read(source, ends(1, 1), ends(2, 1)) == {"P0": [2]}
    assert after(source, ends(2, 1)) == ends(4, 4)
    assert read(source, ends(2, 1), ends(4, 4)) == {"P0": [3], "P1": [2, 3]}
    source.stop()


def test_what_was_read_ahead_is_given_only_where_it_is_asked_for(topics: str) -> None:
    transact(topics, TICKS_TOPIC, ticks(1, 2, 3, 4, 5))
    source = reader(topics, largest_batch=4)
    assert read(source, ends(0, 0), ends(2, 2)) == {"P0": [1, 2], "P1": [1, 2]}
    assert read(source, ends(0, 0), ends(1, 2)) == {"P0": [1], "P1": [1, 2]}
    assert after(source, ends(2, 2)) == ends(4, 4)
    assert read(source, ends(1, 2), ends(2, 2)) == {"P0": [2]}
    assert read(source, ends(2, 2), ends(4, 4)) == {"P0": [3, 4], "P1": [3, 4]}
    source.stop()


def test_records_that_are_gone_by_then_are_an_error_of_the_batch_that_has_them(topics: str) -> None:
    transact(topics, TICKS_TOPIC, ticks(1, 2, 3, 4, 5))
    source = reader(topics, largest_batch=4)
    admin = AdminClient({"bootstrap.servers": topics})
    (removed,) = admin.delete_records([TopicPartition(TICKS_TOPIC, 0, 2)]).values()
    removed.result(30)
    with pytest.raises(KafkaException, match="_AUTO_OFFSET_RESET"):
        read(source, ends(1, 0), ends(3, 2))
    source.stop()


def test_a_topic_that_ends_before_the_query_goes_on_is_an_error(topics: str) -> None:
    transact(topics, TICKS_TOPIC, ticks(1))
    source = reader(topics)
    with pytest.raises(CutOff, match=rf"{TICKS_TOPIC} partition 1 ends before offset 3"):
        after(source, ends(2, 3))
    source.stop()


def test_reading_ends_where_it_is_to_end(topics: str) -> None:
    transact(topics, TICKS_TOPIC, ticks(1, 2))
    until = TopicWatch((TICKS_TOPIC,), {"bootstrap.servers": topics}).committed()
    transact(topics, TICKS_TOPIC, ticks(3))
    source = reader(topics, until=until)
    assert after(source, ends(0, 0)) == ends(3, 3)
    assert after(source, ends(3, 3)) == ends(3, 3)
    source.stop()


def test_no_password_is_shown() -> None:
    assert SECRET not in repr(reader("nowhere:9092")._reading)


SYMBOL = "P0"
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def result(price: int) -> bytes:
    """A message of the statistics topic."""
    numbers = np.full((6, 1), float(price))
    packed = pack_results(np.array([NOW + price]), numbers, numbers, np.ones((6, 1), dtype=np.int64))
    (message,) = form_messages(MOVING_TOPIC, [(SYMBOL, packed)])[1]
    return message


def wrong_times(good: bytes) -> list[dict[str, Any]]:
    times = (-(10**16), 10**16, 2**63 - 1, -(2**63), 9_214_646_400_000)
    return [{"value": good, "key": SYMBOL, "timestamp": time} for time in times]


def poison(good: bytes) -> list[dict[str, Any]]:
    """Messages that are neither ticks nor results, each as arguments for producing it."""
    keys: tuple[str | bytes | None, ...] = (None, "", "P1", b"\xff", "P0 ")
    values = (None, b"", b"x", b"\xff", b"\n", b"{}", b"null", good + b"\0", b"\xef\xbb\xbf" + good, b'{"\\u":1}')
    return [
        *({"value": good, "key": wrong} for wrong in keys),
        *({"value": value, "key": SYMBOL} for value in values),
        {"value": b"[" * 500_000, "key": SYMBOL},
        {"value": good + b" " * 900_000 + b"x", "key": SYMBOL, "headers": [("h", None), ("", b"\0" * 90_000)]},
        {"value": b"x" * 900_000, "key": b"k" * 90_000},
    ]


def produce(broker: str, topic: str, messages: list[dict[str, Any]], **settings: Any) -> None:
    failures: list[str] = []

    def note(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(f"{error}: {message.timestamp()}")

    producer = Producer({"bootstrap.servers": broker, "message.max.bytes": 1_000_000_000, **settings})
    for message in messages:
        producer.produce(topic, partition=0, on_delivery=note, **message)
    assert producer.flush(60) == 0
    assert failures == []


@pytest.fixture
def both_topics(topics: str) -> Iterator[str]:
    """With what brokers of before version 4 allow: any record timestamp."""
    remove_topics(topics, [MOVING_TOPIC])
    create_topics(topics, [MOVING_TOPIC], partitions=2)
    entry = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, TICKS_TOPIC, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": topics})
    (done,) = admin.incremental_alter_configs([resource]).values()
    done.result(30)
    yield topics
    remove_topics(topics, [MOVING_TOPIC])


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_no_message_keeps_those_around_it_from_being_read(both_topics: str, compression: str) -> None:
    client = {"bootstrap.servers": both_topics}
    first_tick, second_tick = (text.replace("#", "0").encode() for text in ticks(1, 2))
    bad = [*wrong_times(first_tick), *poison(first_tick)]
    at = {"key": SYMBOL, "timestamp": NOW}
    settings = {"compression.type": compression, "linger.ms": 100}
    bad_results = poison(result(1))
    messages = [{"value": first_tick, **at}, *bad, {"value": second_tick, **at}]
    results = [{"value": result(1), **at}, *bad_results, {"value": result(2), **at}]
    produce(both_topics, TICKS_TOPIC, messages, **settings)
    produce(both_topics, MOVING_TOPIC, results, **settings)

    source = SourceReader(Reading((TICKS_TOPIC, MOVING_TOPIC), client, 1_000, 1))
    start = source.initialOffset()
    end = after(source, start)
    rows = pa.Table.from_batches(source.getCache(start, end)).column("content").to_pylist()
    source.stop()
    unpacked = unpack(rows)
    assert set(unpacked.ticks) == set(unpacked.statistics) == {SYMBOL}
    assert [price // UNITS_PER_PRICE for price in unpacked.ticks[SYMBOL].prices] == [1, 2]
    assert unpacked.statistics[SYMBOL].averages[0].tolist() == [1.0, 2.0]
    assert unpacked.rejected == len(bad)

    def records(topic: str) -> list[pa.RecordBatch]:
        return list(map(record_batch, read_range(OffsetRange(topic, {}, numbered(end)[topic]), client)))

    stored = [row for rows in classify(records(TICKS_TOPIC)) for row in rows.to_pylist()]
    assert [row["offset"] for row in stored if row["reason"] is None] == [0, len(messages) - 1]
    assert all(row["raw"] == message["value"] for row, message in zip(stored[1:-1], bad, strict=True))
    found = [read_results(MOVING_TOPIC, each.column("key"), each.column("value")) for each in records(MOVING_TOPIC)]
    assert sum(table_rows("moving_stats", each).num_rows for each in found) == 2


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
def test_a_batch_that_is_small_on_its_way_and_large_when_it_is_read(topics: str, compression: str) -> None:
    """Larger than librdkafka takes by default; and it is handed on in portions."""
    (tick,) = (text.replace("#", "0").encode() for text in ticks(1))
    settings = {"compression.type": compression, "linger.ms": 2_000, "batch.size": 1_000_000_000}
    huge = [{"value": b"\0" * 1_000_000, "key": SYMBOL}] * 150
    at = {"key": SYMBOL, "timestamp": NOW}
    produce(topics, TICKS_TOPIC, [*huge, {"value": tick, **at}], **settings)
    client = {"bootstrap.servers": topics}
    parts = list(read_range(OffsetRange(TICKS_TOPIC, {}, {0: len(huge) + 1}), client))
    assert [size(messages) <= 64 * 2**20 for messages in parts] == [True] * len(parts)
    assert sum(map(len, parts)) == len(huge) + 1
    rows = pa.Table.from_batches(pack(map(record_batch, parts), buckets=1))
    unpacked = unpack(rows.column("content").to_pylist())
    assert (unpacked.rejected, len(unpacked.ticks[SYMBOL].prices)) == (len(huge), 1)


def test_micro_batches_of_large_messages_have_fewer(topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reader, "_BATCH_BYTES", 1_000_000)
    monkeypatch.setattr(topic_reader, "_FEWEST", 2)
    produce(topics, TICKS_TOPIC, [{"value": b"x" * 100_000, "key": SYMBOL}] * 100)
    source = SourceReader(Reading((TICKS_TOPIC,), {"bootstrap.servers": topics}, 40, 1))
    start, sizes = source.initialOffset(), []
    while (end := after(source, start)) != start:
        rows = pa.Table.from_batches(source.getCache(start, end)).column("content").to_pylist()
        sizes.append(unpack(rows).rejected)
        start = end
    source.stop()
    assert sizes[0] == 40
    assert set(sizes[1:-1]) == {9}
    assert sum(sizes) == 100
