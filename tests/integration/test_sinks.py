"""Publishing: by workers that take turns, as Spark gives a partition to whichever is free; and over a slow link."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from orchestration.local.broker import create_topics
from orchestration.local.java import Java
from orchestration.local.ports import free_port
from spark_jobs.framing import encode_blobs
from spark_jobs.sinks import kafka
from spark_jobs.sinks.existing_results import survey
from spark_jobs.sinks.kafka import KafkaTarget, Markers, Owner, _Channel
from tests.chaos.proxy import Proxy
from tests.own_broker import OwnBroker
from tickhouse.contract.encoding import pack_results
from tickhouse.contract.names import MOVING_TOPIC, WINDOWS, ZSCORE_TOPIC
from tickhouse.contract.topology import COUNTS
from tickhouse.kafka.markers import NOTHING_PUBLISHED, Marker, MarkerMismatch, MicroBatch

pytestmark = pytest.mark.integration


def batch(number: int) -> MicroBatch:
    """Of ten messages."""
    first = {"btc-price": {0: 10 * number}} if number else {}
    return MicroBatch(number, first, {"btc-price": {0: 10 * number + 10}})


def settled(markers: Markers) -> list[Marker | None]:
    """What the markers say once brokers have carried out what they have accepted."""
    return markers.write(lambda found: found)


def row(late: int) -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), "late": late, "event_time": None, "results": None}


def test_a_worker_that_another_has_fenced_begins_anew_without_a_failure(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    create_topics(broker, (ZSCORE_TOPIC,))
    # The clients outlive the broker, as they do in workers, and would say so.
    target = KafkaTarget((ZSCORE_TOPIC,), {"bootstrap.servers": broker, "log_level": "0"})
    markers = Markers("turns", target, 1)
    assert markers.read() == [None]
    markers.write(lambda found: found or NOTHING_PUBLISHED)
    one, other = (_Channel("tickhouse-turns-0", target) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        counted = [
            channel.publish(batch(number), [row(late=1)])["late"]
            for number, channel in enumerate([one, one, other, one, other, other, one])
        ]
        assert one.publish(batch(6), [row(late=1)])["late"] == 7, "a repeated micro-batch counts once"
    assert counted == [1, 2, 3, 4, 5, 6, 7]
    (found,) = settled(markers)
    assert found is not None and (found.number, found.ends) == (7, batch(6).ends)
    # A broker that is new to its coordination may be asked twice.
    assert [record for record in caplog.messages if "NOT_COORDINATOR" not in record] == []


def test_a_transaction_that_a_killed_worker_has_left_open_holds_up_nobody(broker: str) -> None:
    create_topics(broker, (ZSCORE_TOPIC,))
    target = KafkaTarget((ZSCORE_TOPIC,), {"bootstrap.servers": broker, "log_level": "0"})
    markers = Markers("left-open", target, 1)
    markers.write(lambda _: NOTHING_PUBLISHED)
    killed, next_one = (_Channel("tickhouse-left-open-0", target) for _ in range(2))
    killed.publish(batch(0), [row(late=1)])
    producer = killed._producer
    assert producer is not None
    producer.begin_transaction()
    offset = TopicPartition(ZSCORE_TOPIC, 0, 2, "{}")
    producer.send_offsets_to_transaction([offset], killed._group.consumer_group_metadata(), 30)
    began = time.monotonic()
    (found,) = markers.read()
    assert found is not None and found.ends == batch(0).ends
    assert next_one.publish(batch(1), [row(late=1)])["late"] == 2
    assert time.monotonic() - began < 20, "brokers keep such a transaction for a quarter of an hour"


def results(symbol: str, timestamps: list[int]) -> dict[str, Any]:
    """A row with a z-score of each time."""
    packed = pack_results(np.array(timestamps), np.ones((len(WINDOWS), len(timestamps))))
    return {**row(0), "results": [encode_blobs({symbol: packed})]}


def test_a_marker_that_is_gone_or_of_others_stops_it_and_what_is_there_is_left_out(broker: str) -> None:
    create_topics(broker, (ZSCORE_TOPIC,))
    target = KafkaTarget((ZSCORE_TOPIC,), {"bootstrap.servers": broker, "log_level": "0"})
    markers = Markers("lost", target, 1)
    markers.write(lambda found: found or NOTHING_PUBLISHED)
    channel = _Channel("tickhouse-lost-0", target)
    channel.publish(batch(0), [results("LOSTUSDT", [1_000, 2_000])])
    with pytest.raises(MarkerMismatch, match="in the middle of the planned micro-batch 1"):
        channel.publish(MicroBatch(1, batch(0).first, batch(1).ends), [])
    # Renewed, it says the same, and whoever had a session begins another.
    before = settled(markers)
    assert before[0] is not None and before[0].ends == batch(0).ends
    assert settled(markers) == before
    channel.publish(batch(1), [results("LOSTUSDT", [3_000])])

    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_consumer_groups(["tickhouse-lost-0"]).values():
        future.result(30)
    assert markers.read() == [None]
    with pytest.raises(MarkerMismatch, match="Kafka has lost the marker"):
        _Channel("tickhouse-lost-0", target).publish(batch(2), [results("LOSTUSDT", [4_000])])

    owner = Owner("lost", target)
    assert owner.read() is None
    owner.write("anew")
    assert owner.read() == "anew"

    # A checkpoint that is made anew computes everything once more.
    found = survey(target.topics, target.client, 10_000)
    assert found.existing[ZSCORE_TOPIC]["LOSTUSDT"].later.tolist() == [1_000, 2_000, 3_000]
    anew = Markers("anew", target, 1)
    anew.write(lambda found: found or NOTHING_PUBLISHED)
    other = _Channel("tickhouse-anew-0", target._replace(existing=found.existing))
    other.publish(batch(0), [results("LOSTUSDT", [1_000, 2_000, 3_000, 4_000]), results("NEWUSDT", [1_000])])
    again = survey(target.topics, target.client, 10_000, found).existing[ZSCORE_TOPIC]
    assert again["LOSTUSDT"].later.tolist() == [1_000, 2_000, 3_000, 4_000]
    watched = sum(
        end - found.ends[ZSCORE_TOPIC][number]
        for number, end in survey(target.topics, target.client, 10_000, found).ends[ZSCORE_TOPIC].items()
    )
    assert watched <= 4, "two results, each with the end of its transaction"


def test_a_transaction_takes_as_long_as_messages_get_through(
    home: Path, java: Java, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    broker = OwnBroker(home, java, tools, advertised=port)
    proxy = Proxy(port, lambda: broker.port)
    try:
        broker.start()
        create_topics(broker.bootstrap, (MOVING_TOPIC,))
        target = KafkaTarget((MOVING_TOPIC,), {"bootstrap.servers": f"127.0.0.1:{port}", "log_level": "0"})
        Markers("slow", target, 1).write(lambda found: NOTHING_PUBLISHED)
        channel = _Channel("tickhouse-slow-0", target)
        monkeypatch.setattr(kafka, "_TIMEOUT_SECONDS", 4.0)
        count = 8_000
        numbers = np.random.default_rng(1).random((len(WINDOWS), count))
        packed = pack_results(np.arange(count), numbers, numbers / 3, np.ones((len(WINDOWS), count), dtype=np.int64))
        proxy.throttle(400_000)
        began = time.monotonic()
        channel.publish(batch(0), [{**row(1), "results": [encode_blobs({"SLOWUSDT": packed})]}])
        took = time.monotonic() - began
        assert took > 4, "else it is not slow"
        proxy.throttle(None)
        found = survey(target.topics, target.client, 10_000)
        assert len(found.existing[MOVING_TOPIC]["SLOWUSDT"].later) == count
    finally:
        proxy.throttle(None)
        broker.stop(5)
        proxy.close()
