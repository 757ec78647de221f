"""The source of a computing query on a real broker, called as Spark calls it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pyarrow as pa
import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql.streaming.datasource import ReadAllAvailable

from orchestration.local.broker import create_topics
from spark_jobs.offsets import Offsets
from spark_jobs.packing import unpack
from spark_jobs.reading import Reading
from spark_jobs.source_reader import SourceReader
from spark_jobs.topic_reader import CutOff
from spark_jobs.topics import TopicWatch
from tests.broker_topics import remove_topics, transact
from tickhouse.contract.names import TICKS_TOPIC

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
