"""The four stream jobs as processes against a real broker: all killed in the middle, resumed, exact at the end."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from orchestration import processes
from orchestration.local import broker as kafka
from orchestration.local.artifacts import spark_jars
from orchestration.local.java import Java
from spark_jobs.jobs import JOBS, TOPICS
from tests.own_broker import OwnBroker
from tests.reference.compare import compare_everything
from tests.reference.stream import generate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
FEED_SECONDS = 75


@pytest.fixture
def own_broker(home: Path, tools: Path, java: Java) -> Iterator[OwnBroker]:
    """A running broker with the project's topics."""
    broker = OwnBroker(home, java, tools)
    broker.start()
    kafka.create_topics(broker.bootstrap, TOPICS)
    yield broker
    for name in (*JOBS, "kafka"):
        left = processes.recorded(home, name)
        if left is not None:
            processes.stop(left, 10)


@pytest.fixture
def launch(home: Path, tools: Path, java: Java, own_broker: OwnBroker) -> Callable[..., processes.Process]:
    """Starts a job as a process; settings by name."""

    def start(name: str, **settings: str) -> processes.Process:
        environment = {
            **os.environ,
            "JAVA_HOME": str(java.path),
            "TICKHOUSE_HOME": str(home),
            "TICKHOUSE_JARS": str(spark_jars(tools)),
            "TICKHOUSE_KAFKA_BOOTSTRAP": own_broker.bootstrap,
            **{f"TICKHOUSE_{key.upper()}": value for key, value in settings.items()},
        }
        return processes.start(home, name, [sys.executable, "-m", "spark_jobs", name], environment)

    return start


def wait_until_ended(process: processes.Process, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while processes.alive(process):
        assert time.monotonic() < deadline, f"{process.name} has not ended: see {process.log}"
        time.sleep(0.2)


def heartbeat(home: Path, name: str) -> dict[str, object]:
    content = processes.read_heartbeat(home, name)
    assert content is not None
    return content


def test_killed_in_the_middle_and_exact_at_the_end(
    home: Path, own_broker: OwnBroker, launch: Callable[..., processes.Process]
) -> None:
    running = {name: launch(name, archive_interval_seconds="5") for name in JOBS}
    lines = generate(seed=11, symbols=("BTCUSDT", "SHIBUSDT", "A.B-C_9"), ticks=6_000)
    producer = Producer(
        {"bootstrap.servers": own_broker.bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    dice = random.Random(11)
    victims = list(JOBS)
    dice.shuffle(victims)
    kill_at = {len(lines) * (4 + number) // 9: name for number, name in enumerate([*victims, "broker"])}
    began = time.monotonic()
    for number, line in enumerate(lines):
        try:
            key = json.loads(line.value)["symbol"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            key = None
        producer.produce("btc-price", line.value, key, partition=0 if key is None else -1)
        producer.poll(0)
        name = kill_at.get(number, "")
        if name == "broker":
            own_broker.kill()
            own_broker.start()
        elif name:
            os.kill(running[name].pid, signal.SIGKILL)
            wait_until_ended(running[name], 10)
            running[name] = launch(name, archive_interval_seconds="5")
        time.sleep(max(0.0, began + FEED_SECONDS * number / len(lines) - time.monotonic()))
    producer.flush()

    deadline = time.monotonic() + 240
    while True:
        # What a supervisor does: a stream may end when its broker does.
        running |= {name: launch(name) for name, process in running.items() if not processes.alive(process)}
        report = compare_everything(own_broker.bootstrap, str(home / "lakehouse"), None, wait=15)
        if report.ok:
            break
        assert time.monotonic() < deadline, report.text()

    for process in running.values():
        os.kill(process.pid, signal.SIGTERM)
    for name, process in running.items():
        wait_until_ended(process, 60)
        assert heartbeat(home, name)["state"] == "stopped"
    # What was counted on the way survived the kills as exactly as what was published.
    moving, zscore = heartbeat(home, "moving"), heartbeat(home, "zscore")
    assert moving["input_rows"] == heartbeat(home, "prices")["input_rows"] == len(lines)
    assert zscore["output_rows"] == moving["output_rows"]
    assert [moving[name] for name in ("late", "duplicates", "rejects")] == [
        zscore[name] for name in ("late", "duplicates", "rejects")
    ]


def test_a_checkpoint_of_other_parameters_is_refused(home: Path, launch: Callable[..., processes.Process]) -> None:
    wait_until_ended(launch("trend", trigger="available_now"), 120)
    assert heartbeat(home, "trend")["state"] == "stopped"
    wait_until_ended(launch("trend", trigger="available_now", lateness_seconds="5"), 120)
    content = heartbeat(home, "trend")
    assert content["state"] == "failed"
    assert "start it with the settings it was made with" in str(content["error"])
