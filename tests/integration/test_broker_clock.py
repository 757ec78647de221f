"""The clock of a real broker is set while results are published: they are there once, or it is said."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from orchestration.local.broker import create_topics
from orchestration.local.java import Java
from spark_jobs.framing import encode_blobs
from spark_jobs.sinks.kafka import KafkaTarget, Markers, _Channel
from tests.fake_clock import FakeClock
from tests.own_broker import OwnBroker
from tickhouse.contract.encoding import pack_results
from tickhouse.contract.names import WINDOWS, ZSCORE_TOPIC
from tickhouse.contract.topology import COUNTS
from tickhouse.kafka.markers import NOTHING_PUBLISHED, MicroBatch

pytestmark = pytest.mark.integration

HOUR = 3_600.0
_SETTLE_SECONDS = 1.0
"""The end of a transaction is written a moment after its commit has been answered. Set back by more than an hour in
that moment, Kafka refuses its own record of the end, and readers wait for it until the broker is started again."""
SYMBOL = "CLOCKUSDT"


class Publishing:
    """One partition of a stream, which publishes micro-batch after micro-batch of three results."""

    def __init__(self, bootstrap: str) -> None:
        self.name = uuid.uuid4().hex[:8]
        self.done = 0
        self._target = KafkaTarget((ZSCORE_TOPIC,), {"bootstrap.servers": bootstrap, "log_level": "0"})
        Markers(self.name, self._target, 1).write(lambda found: found or NOTHING_PUBLISHED)
        self.channel = _Channel(f"tickhouse-{self.name}-0", self._target)

    def publish(self) -> None:
        """The next micro-batch."""
        first = {"btc-price": {0: 3 * self.done}} if self.done else {}
        batch = MicroBatch(self.done, first, {"btc-price": {0: 3 * self.done + 3}})
        times = np.arange(3 * self.done, 3 * self.done + 3)
        packed = pack_results(times, np.ones((len(WINDOWS), 3)))
        row: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "late": 1, "event_time": None}
        row["results"] = [encode_blobs({f"{SYMBOL}-{self.name}": packed})]
        assert self.channel.publish(batch, [row])["late"] == self.done + 1
        self.done += 1

    def restart(self) -> None:
        """Begin anew, as a stream that has crashed."""
        self.channel = _Channel(f"tickhouse-{self.name}-0", self._target)

    def check(self) -> None:
        """All that was published is on the topic once and in its order, to those who read what is committed."""
        settings = {"group.id": uuid.uuid4().hex, "isolation.level": "read_committed", "enable.partition.eof": True}
        reader = Consumer({**self._target.client, **settings})
        partitions = reader.list_topics(ZSCORE_TOPIC, 20).topics[ZSCORE_TOPIC].partitions
        reader.assign([TopicPartition(ZSCORE_TOPIC, partition, 0) for partition in partitions])
        found, ended = [], 0
        while ended < len(partitions):
            message = reader.poll(20)
            assert message is not None, "an open transaction holds up the readers"
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF
                ended += 1
            elif message.key() == f"{SYMBOL}-{self.name}".encode():
                found.append(json.loads(message.value() or b"")["timestamp"])
        reader.close()
        moments = [f"1970-01-01T00:00:{number // 1_000:02}.{number % 1_000:03}Z" for number in range(3 * self.done)]
        assert found == moments
        (marker,) = Markers(self.name, self._target, 1).read()
        assert marker is not None and marker.number == self.done


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakeClock:
    return FakeClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def bootstrap(
    clock: FakeClock, java: Java, tools: Path, tmp_path_factory: pytest.TempPathFactory, guard: Any
) -> Iterator[str]:
    home = tmp_path_factory.mktemp("broker-clock")
    guard(home)
    node = OwnBroker(home, java, tools)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        node.start()
    assert "LD_PRELOAD" not in os.environ
    create_topics(node.bootstrap, (ZSCORE_TOPIC,))
    yield node.bootstrap
    node.stop(1)


@pytest.fixture
def publishing(clock: FakeClock, bootstrap: str) -> Iterator[Publishing]:
    clock.set(0)
    yield Publishing(bootstrap)
    time.sleep(_SETTLE_SECONDS)
    clock.set(0)


def test_results_are_exact_when_the_clock_is_set_back_and_forward(publishing: Publishing, clock: FakeClock) -> None:
    for offset in (0.0, -HOUR + 60, HOUR + 60, 90.0):
        clock.set(offset)
        for _ in range(3):
            publishing.publish()
        publishing.restart()
        publishing.publish()
    publishing.check()


def test_results_are_exact_when_it_jumps_in_the_middle_of_transactions(
    publishing: Publishing, clock: FakeClock
) -> None:
    stop = threading.Event()

    def jump() -> None:
        offsets = np.random.default_rng(3).uniform(-HOUR / 2, HOUR / 2 - 60, 1_000)
        while not stop.wait(0.07):
            clock.set(offsets[publishing.done])

    jumping = threading.Thread(target=jump)
    jumping.start()
    try:
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline:
            publishing.publish()
    finally:
        stop.set()
        jumping.join()
    clock.set(0)
    publishing.publish()
    assert publishing.done > 20
    publishing.check()


def test_a_transaction_that_the_broker_takes_for_too_old_is_published_anew(
    publishing: Publishing, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing.publish()
    began: Any = publishing.channel._producer
    commit, waited = began.commit_transaction, []

    class Slow:
        """The same producer, whose end of a transaction comes after the broker has looked for old ones."""

        def __getattr__(self, name: str) -> Any:
            return getattr(began, name)

        def __len__(self) -> int:
            return len(began)

        def commit_transaction(self, *arguments: Any) -> None:
            clock.set(HOUR / 2)
            time.sleep(11)  # it looks every ten seconds
            waited.append(True)
            commit(*arguments)

    monkeypatch.setattr(publishing.channel, "_producer", Slow())
    publishing.publish()
    assert waited == [True]
    publishing.publish()
    publishing.check()


def test_results_that_are_too_far_ahead_of_its_clock_are_refused_with_a_sentence(
    publishing: Publishing, clock: FakeClock
) -> None:
    publishing.publish()
    time.sleep(_SETTLE_SECONDS)
    clock.set(-2 * HOUR)
    with pytest.raises(KafkaException) as raised:
        publishing.publish()
    assert "timestamp" in str(raised.value).lower()
    publishing.restart()
    clock.set(0)
    for _ in range(2):
        publishing.publish()
    publishing.check()
