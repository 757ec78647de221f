"""Requests that arrive twice, the second time in the middle of a later transaction (KAFKA-17754).

Nothing is torn or lost.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.local import broker as kafka
from orchestration.local import processes
from orchestration.local.artifacts import kafka_jars
from orchestration.local.java import Java
from orchestration.local.ports import free_port
from spark_jobs.framing import encode_blobs
from spark_jobs.sinks.kafka import KafkaTarget, Markers, _Channel, _identity
from tests.chaos import delayed_requests as delayed
from tests.chaos.delayed_requests import DelayingProxy
from tickhouse.contract.encoding import pack_results
from tickhouse.contract.topology import COUNTS
from tickhouse.kafka.markers import NOTHING_PUBLISHED, MicroBatch
from tickhouse.kafka.range_reader import OffsetRange, read
from tickhouse.kafka.topics import TopicWatch

pytestmark = pytest.mark.integration

TOPICS = ("btc-price-higher", "btc-price-lower")
RESULTS = 20
BATCHES = 5


@pytest.fixture(scope="module")
def proxy(
    tools: Path, java: Java, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]
) -> Iterator[DelayingProxy]:
    """In front of a broker that tells its clients to come by it."""
    home = tmp_path_factory.mktemp("delayed")
    guard(home)
    node = kafka.Broker(home / "kafka", free_port(), free_port())
    node.prepare(java, kafka_jars(tools))
    proxy = DelayingProxy(free_port(), node.port)
    properties = node.directory / "server.properties"
    advertised = f"advertised.listeners=PLAINTEXT://127.0.0.1:{node.port}"
    content = properties.read_text()
    assert advertised in content
    properties.write_text(content.replace(advertised, f"advertised.listeners=PLAINTEXT://{proxy.address}"))
    process = processes.start(home, "kafka", node.command(java, kafka_jars(tools)), os.environ)
    try:
        kafka.wait_ready(proxy.address, lambda: processes.alive(process), 60)
        kafka.create_topics(proxy.address, TOPICS)
        yield proxy
    finally:
        processes.stop(process, 5)
        proxy.close()


@pytest.mark.parametrize(
    ("held", "after"),
    [
        pytest.param(delayed.END_TXN, (delayed.ADD_PARTITIONS_TO_TXN, delayed.PRODUCE), id="end, among results"),
        pytest.param(delayed.END_TXN, (delayed.ADD_PARTITIONS_TO_TXN,), id="end, before results"),
        pytest.param(
            delayed.END_TXN, (delayed.ADD_PARTITIONS_TO_TXN, delayed.ADD_OFFSETS_TO_TXN), id="end, after them"
        ),
        pytest.param(delayed.END_TXN, (delayed.TXN_OFFSET_COMMIT,), id="end, after the marker"),
        pytest.param(
            delayed.TXN_OFFSET_COMMIT, (delayed.END_TXN, delayed.TXN_OFFSET_COMMIT), id="marker, after the next"
        ),
        pytest.param(delayed.ADD_PARTITIONS_TO_TXN, (delayed.END_TXN,), id="partitions, between transactions"),
    ],
)
def test_a_late_copy_of_a_request_tears_nothing(
    proxy: DelayingProxy, held: int, after: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    query = f"late-{held}-{'-'.join(map(str, after))}"
    # The clients outlive the broker, as they do in workers, and would say so.
    target = KafkaTarget(TOPICS, {"bootstrap.servers": proxy.address, "log_level": "0"})
    Markers(query, target, 1).write(lambda _: NOTHING_PUBLISHED)
    channel = _Channel(_identity(query, 0), target)
    delivered = None
    for number in range(BATCHES):
        if number == 2:
            delivered = proxy.delay(held, after)
        channel.publish(micro_batch(number), [row(number, request.node.callspec.id)])
    assert delivered is not None
    assert delivered(10), "the request was not delivered late: the test has tested nothing"
    symbol = request.node.callspec.id
    expected = Counter(
        {(topic, number * RESULTS + one): 1 for topic in TOPICS for number in range(BATCHES) for one in range(RESULTS)}
    )
    assert published(target, symbol) == expected
    (marker,) = Markers(query, target, 1).read()
    assert marker is not None
    assert marker.ends == micro_batch(BATCHES - 1).ends
    assert marker.counts["output_rows"] == BATCHES * RESULTS


def micro_batch(number: int) -> MicroBatch:
    return MicroBatch(number, {"btc-price": {0: 10 * number}} if number else {}, {"btc-price": {0: 10 * number + 10}})


def row(number: int, symbol: str) -> dict[str, Any]:
    times = np.arange(number * RESULTS, (number + 1) * RESULTS, dtype=np.int64)
    packed = encode_blobs({symbol: pack_results(times, np.full(RESULTS, 20_000, dtype=np.int64))})
    return {**dict.fromkeys(COUNTS, 0), "output_rows": RESULTS, "event_time": None, "results": [packed, packed]}


def published(target: KafkaTarget, symbol: str) -> Counter[tuple[str, int]]:
    """How often there is which result of a symbol: topic and milliseconds."""
    found: Counter[tuple[str, int]] = Counter()
    for topic, ends in TopicWatch(TOPICS, target.client).committed().items():
        for messages in read(OffsetRange(topic, {}, ends), target.client):
            for message in messages:
                if message.key() == symbol.encode():
                    text = (message.value() or b"")[14:37].decode()
                    found[topic, int(np.datetime64(text, "ms").astype(np.int64))] += 1
    return found
