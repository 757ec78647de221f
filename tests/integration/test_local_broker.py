"""The local broker, for real: topics, what it must never forget, and coming back after a kill -9."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from orchestration.local import processes
from orchestration.local.artifacts import kafka_jars
from orchestration.local.broker import Broker, NotReady, TopicMismatch, create_topics, wait_ready
from orchestration.local.java import Java
from orchestration.local.ports import free_port

pytestmark = pytest.mark.integration


def start(home: Path, node: Broker, java: Java, tools: Path) -> processes.Process:
    process = processes.start(home, "kafka", node.command(java, kafka_jars(tools)), os.environ)
    wait_ready(node.bootstrap, lambda: processes.alive(process), 60)
    return process


def commit_marker(bootstrap: str, topic: str, group: str) -> None:
    """One message and, in the same transaction, an offset of a consumer group: how publishing is exactly once."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": group})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"value", key=b"key")
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, 42)], consumer.consumer_group_metadata(), 60)
    producer.commit_transaction(60)
    consumer.close()


def committed(bootstrap: str, topic: str, group: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed"})
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                return consumer.committed([TopicPartition(topic, 0)], 60)[0].offset
            except KafkaException as error:
                # A broker that has just started may not know for a moment that it is the group's coordinator.
                if error.args[0].code() != KafkaError.NOT_COORDINATOR or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
    finally:
        consumer.close()


def test_topics_are_made_once_and_checked_later(broker: str) -> None:
    first, second = f"a-{uuid.uuid4().hex}", f"b-{uuid.uuid4().hex}"
    create_topics(broker, [first])
    create_topics(broker, [first, second])
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    assert [len(topics[name].partitions) for name in (first, second)] == [4, 4]
    with pytest.raises(TopicMismatch, match=f"{first} has 4 partitions instead of 3"):
        create_topics(broker, [first], partitions=3)


def test_topics_are_not_made_by_asking_for_them(broker: str) -> None:
    name = f"typo-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.list_topics(name, timeout=10)
    assert name not in admin.list_topics(timeout=10).topics


def test_what_exactly_once_rests_on_does_not_expire(broker: str) -> None:
    resource = ConfigResource(ResourceType.BROKER, "1")
    admin = AdminClient({"bootstrap.servers": broker})
    values = admin.describe_configs([resource])[resource].result(30)
    years = 60 * 24 * 365
    assert int(values["offsets.retention.minutes"].value) >= 10 * years
    assert int(values["transactional.id.expiration.ms"].value) == 2**31 - 1
    assert int(values["log.retention.ms"].value or 0) in (0, -1, 7 * 24 * 3_600_000)
    assert values["auto.create.topics.enable"].value == "false"
    listeners = values["listeners"].value.split(",")
    assert all(listener.split("://")[1].startswith("127.0.0.1:") for listener in listeners)


def test_it_comes_back_after_a_kill_with_all_that_was_acknowledged(home: Path, java: Java, tools: Path) -> None:
    node = Broker(home / "kafka", free_port(), free_port())
    node.prepare(java, kafka_jars(tools))
    process = start(home, node, java, tools)
    create_topics(node.bootstrap, ["t"])
    commit_marker(node.bootstrap, "t", "query")
    os.kill(process.pid, signal.SIGKILL)
    moved = Broker(home / "kafka", free_port(), free_port())  # a stack started anew may have other ports
    moved.prepare(java, kafka_jars(tools))
    processes.stop(process)
    start(home, moved, java, tools)
    assert committed(moved.bootstrap, "t", "query") == 42
    commit_marker(moved.bootstrap, "t", "query")  # the transactional id can be taken over


def test_an_interrupted_format_is_repeated(home: Path, java: Java, tools: Path) -> None:
    node = Broker(home / "kafka", free_port(), free_port())
    (home / "kafka" / "data.unfinished").mkdir(parents=True)
    (home / "kafka" / "data.unfinished" / "meta.properties").write_text("version=1\n")
    node.prepare(java, kafka_jars(tools))
    assert (home / "kafka" / "data" / "meta.properties").read_text().count("cluster.id") == 1
    assert not (home / "kafka" / "data.unfinished").exists()


def test_a_broker_that_ends_at_once_is_told_and_its_log_says_why(
    home: Path, java: Java, tools: Path, broker: str
) -> None:
    taken = int(broker.split(":")[1])
    node = Broker(home / "kafka", taken, free_port())
    node.prepare(java, kafka_jars(tools))
    process = processes.start(home, "kafka", node.command(java, kafka_jars(tools)), os.environ)
    with pytest.raises(NotReady, match="has ended: its log says why"):
        # Its port answers, but that is another broker: whoever asks by address alone would not notice.
        wait_ready("127.0.0.1:1", lambda: processes.alive(process), 60)
    assert "Address already in use" in Path(process.log).read_text()
