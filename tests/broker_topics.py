"""Topics of a real broker: transactions on them, and taking them away."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Sequence

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.reference.acceptance import right_key
from tickhouse.kafka.topics import TopicWatch, look


def transact(
    broker: str, topic: str, texts: Sequence[str], *, commit: bool = True, partitions: Sequence[int] = (0, 1)
) -> None:
    """One that puts every text, a # in it being the partition's number, on every partition; its end takes an offset.

    Ticks have the key that they must have.
    """
    producer = Producer({"bootstrap.servers": broker, "transactional.id": f"{topic}-{uuid.uuid4()}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition, text in itertools.product(partitions, texts):
        value = text.replace("#", str(partition)).encode()
        producer.produce(topic, value, right_key(value), partition=partition)
    producer.flush(30)
    producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    # The brokers note the end in each partition a moment after they have said that it is ended.
    client = {"bootstrap.servers": broker}
    watch = TopicWatch((topic,), client)
    while watch.committed() != {topic: _written(topic, client)}:
        time.sleep(0.02)


def _written(topic: str, client: dict[str, str]) -> dict[int, int]:
    return {number: extent.end for number, extent in look([topic], client, 30)[topic].partitions.items()}


def remove_topics(broker: str, names: Sequence[str]) -> None:
    """Take away those that are there; returns when the broker knows none of them."""
    admin = AdminClient({"bootstrap.servers": broker})
    there = [name for name in names if name in admin.list_topics(timeout=10).topics]
    for future in admin.delete_topics(there).values() if there else ():
        future.result(30)
    while any(name in admin.list_topics(timeout=10).topics for name in names):
        time.sleep(0.1)
