"""A real stream and what it must refuse: lost messages, a second process on its checkpoint; and how it then goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable

from orchestration.lakehouse.tables import Lakehouse
from orchestration.local import broker as kafka
from orchestration.local import processes
from orchestration.local.artifacts import spark_jars
from orchestration.local.java import Java
from orchestration.settings import OrchestrationSettings
from orchestration.supervision import skip_gaps
from orchestration.supervision.lag import Topics
from orchestration.supervision.skip_gaps import SkipFailed
from tests.broker_topics import remove_topics
from tests.reference.acceptance import right_key
from tests.reference.compare import judge_stats
from tests.reference.forms import stats_value, topic_results
from tests.reference.model import INPUT_TOPIC, evaluate
from tests.reference.readers import read_system
from tests.reference.snapshot import MOVING_TOPIC
from tests.reference.stream import Line, generate
from tickhouse.contract.topology import TOPICS
from tickhouse.errors import EXIT_CODE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.whole_machine]
TICKHOUSE = str(Path(sys.executable).with_name("tickhouse"))
LOST = 40


@pytest.fixture
def topics(broker: str) -> Iterator[str]:
    """The broker with the project's topics, new, and none of them afterwards."""
    remove_topics(broker, TOPICS)
    kafka.create_topics(broker, TOPICS)
    yield broker
    remove_topics(broker, TOPICS)


class Stream:
    """The `moving` job of one home, as a process."""

    def __init__(self, home: Path, tools: Path, java: Java, bootstrap: str) -> None:
        self._home = home
        self.settings = {
            "JAVA_HOME": str(java.path),
            "TICKHOUSE_HOME": str(home),
            "TICKHOUSE_JARS": str(spark_jars(tools)),
            "TICKHOUSE_KAFKA_BOOTSTRAP": bootstrap,
            "TICKHOUSE_ARCHIVE_INTERVAL_SECONDS": "1",
        }
        self.command = [sys.executable, "-m", "spark_jobs", "moving"]

    def start(self, trigger: str = "continuous", **settings: str) -> processes.Process:
        environment = {**os.environ, **self.settings, "TICKHOUSE_TRIGGER": trigger, **settings}
        return processes.start(self._home, "moving", self.command, environment)

    def run_available(self, **settings: str) -> tuple[int | None, dict[str, Any]]:
        return self.outcome(self.start("available_now", **settings))

    def outcome(self, process: processes.Process) -> tuple[int | None, dict[str, Any]]:
        # A process may be dead to `alive` a moment before its exit code can be had.
        wait_until(lambda: not processes.alive(process) and processes.exit_code(process) is not None, 120, process.log)
        return processes.exit_code(process), self.heartbeat()

    def heartbeat(self) -> dict[str, Any]:
        return processes.read_heartbeat(self._home, "moving") or {}

    def has_read(self, messages: int) -> bool:
        offsets = self.heartbeat().get("queries", {}).get("moving", {}).get("offsets", {}).get(INPUT_TOPIC, {})
        return bool(sum(offsets.values()) >= messages)

    def tickhouse(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.settings, "COLUMNS": "1000"}
        return subprocess.run(
            [TICKHOUSE, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
        )


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.2)


def feed(bootstrap: str, lines: Iterator[Line], count: int) -> int:
    """Produce the next lines of a stream of ticks, bad ones among them; returns how many."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for line in islice(lines, count):
        producer.produce(INPUT_TOPIC, line.value, right_key(line.value), partition=1)
    assert producer.flush(30) == 0
    return count


def test_lost_messages_are_gone_past_only_when_told_and_two_never_share_a_checkpoint(
    home: Path, tools: Path, java: Java, topics: str
) -> None:
    stream = Stream(home, tools, java, topics)
    lines = iter(generate(seed=1, symbols=("BTCUSDT", "A.B-C_9"), ticks=3_600))
    before = feed(topics, lines, 2_600)
    # Several micro-batches: between two of them Spark has no data, and the stream is not done.
    code, heartbeat = stream.run_available(TICKHOUSE_MAX_OFFSETS_PER_TRIGGER="1000")
    assert (code, heartbeat["state"], heartbeat["input_rows"]) == (0, "done", before)
    assert heartbeat["queries"]["moving"]["batch_id"] >= 2
    assert saved(home) == heartbeat["output_rows"] > 0
    after = feed(topics, lines, 600)
    everything = read_system(topics, None, None).messages

    # Retention gets ahead of the reader.
    first = before + LOST
    admin = AdminClient({"bootstrap.servers": topics})
    for future in admin.delete_records([TopicPartition(INPUT_TOPIC, 1, first)]).values():
        future.result(30)
    code, heartbeat = stream.run_available()
    assert (code, heartbeat["state"], heartbeat["retry"]) == (EXIT_CODE, "failed", False)
    told = f"{INPUT_TOPIC} partition 1: offset {before} is wanted, {first} is the first available, {LOST} messages are"
    assert told in heartbeat["error"] and "`tickhouse skip moving`" in heartbeat["error"]

    shown = stream.tickhouse("skip", "moving", "--yes")
    assert shown.returncode == 0, shown.stderr
    assert told in shown.stdout
    rows = json.loads(stream.tickhouse("sql", "SELECT * FROM gaps", "--format", "json").stdout)
    skipped = {"query": "moving", "topic": INPUT_TOPIC, "partition": 1, "from_offset": before, "to_offset": first}
    assert skipped.items() <= rows.items() and rows["messages"] == LOST
    (gap,) = json.loads(stream.tickhouse("status", "--json").stdout)["gaps"]
    assert skipped.items() <= gap.items()
    assert "Nothing is lost" in stream.tickhouse("skip", "moving").stdout

    # It goes on with its state, its counts and its marker: as if the lost messages had never been.
    process = stream.start()
    wait_until(lambda: stream.has_read(before + after), 90, process.log)
    kept = [message for message in everything if not before <= message.offset < first]
    expected = evaluate(kept)
    published = list(topic_results(read_system(topics, None, None).topics[MOVING_TOPIC], "stats", stats_value))
    assert len(published) == len(expected.stats) > 800
    assert {found.name for found in published} == set(expected.stats)
    assert [judge_stats(expected.stats[found.name], found.value) for found in published] == [None] * len(published)
    assert stream.heartbeat()["input_rows"] == len(kept)
    with pytest.raises(SkipFailed, match="is running as process"):
        skip_gaps.apply(OrchestrationSettings(home=home), "moving", [])

    # Suspended for whatever time, it still holds its checkpoint.
    stop_family(process, signal.SIGSTOP)
    second = subprocess.run(
        stream.command, env={**os.environ, **stream.settings}, capture_output=True, text=True, timeout=90, check=False
    )
    assert second.returncode == 1
    assert f"process {process.pid} with its JVM" in second.stderr
    stop_family(process, signal.SIGCONT)
    more = feed(topics, lines, 100)
    wait_until(lambda: stream.has_read(before + after + more), 60, process.log)

    # The topic goes away below the running stream.
    remove_topics(topics, (INPUT_TOPIC,))
    code, heartbeat = stream.outcome(process)
    assert (code, heartbeat["retry"]) == (EXIT_CODE, False), heartbeat["error"]
    assert (
        f"{INPUT_TOPIC} partition 1: offset {before + after + more} is wanted, but the topic does not exist"
        in (heartbeat["error"])
    )

    # Created again, it is another topic, whatever its offsets are.
    kafka.create_topics(topics, TOPICS)
    again = feed(topics, lines, 50)
    assert Topics(topics).end_offsets([INPUT_TOPIC])[INPUT_TOPIC][1] == again
    shown = stream.tickhouse("skip", "moving", "--yes")
    assert shown.returncode == 0, shown.stderr
    assert "was deleted and created again, its offsets began anew (first available: 0)" in shown.stdout
    code, heartbeat = stream.run_available()
    assert code == 0, heartbeat["error"]
    assert heartbeat["input_rows"] == len(kept) + more + again


def saved(home: Path) -> int:
    """The rows of the table that the job's results are copied to."""
    return Lakehouse(str(home / "lakehouse")).content("moving_stats").rows


def test_a_checkpoint_that_does_not_suit_what_is_published_catches_up_or_stops(
    home: Path, tools: Path, java: Java, topics: str
) -> None:
    stream = Stream(home, tools, java, topics)
    lines = iter(generate(seed=2, symbols=("BTCUSDT", "A.B-C_9"), ticks=1_500))
    checkpoints = home / "checkpoints"
    feed(topics, lines, 300)
    assert stream.run_available()[0] == 0
    shutil.copytree(checkpoints, home / "backup")
    feed(topics, lines, 300)
    assert stream.run_available()[0] == 0

    # Put back, the older checkpoints compute what is published once more, and copy nothing that is copied. More than
    # there was then is there to be read.
    shutil.rmtree(checkpoints)
    (home / "backup").rename(checkpoints)
    feed(topics, lines, 300)
    code, heartbeat = stream.run_available()
    assert code == 0, heartbeat["error"]
    assert_exact(topics, home)

    (marker,) = marker_groups(checkpoints)
    admin = AdminClient({"bootstrap.servers": topics})
    for future in admin.delete_consumer_groups([marker]).values():
        future.result(30)
    code, heartbeat = stream.run_available()
    assert (code, heartbeat["retry"]) == (EXIT_CODE, False)
    assert "Kafka has lost the marker of what it has published" in heartbeat["error"]
    assert "`tickhouse rebuild moving`" in heartbeat["error"]

    done = stream.tickhouse("rebuild", "moving", "--yes")
    assert done.returncode == 0, done.stderr
    assert "moving begins anew, and leaves out the results of 2 symbols" in done.stdout
    sent = feed(topics, lines, 300)
    code, heartbeat = stream.run_available()
    assert code == 0, heartbeat["error"]
    assert heartbeat["input_rows"] == 900 + sent
    assert_exact(topics, home)

    # The one that was moved aside cannot come back.
    shutil.rmtree(checkpoints / "moving")
    next(checkpoints.glob("moving.replaced-*")).rename(checkpoints / "moving")
    code, heartbeat = stream.run_available()
    assert (code, heartbeat["retry"]) == (EXIT_CODE, False)
    assert "another checkpoint, that of the query" in heartbeat["error"]


def marker_groups(checkpoints: Path) -> list[str]:
    noted = json.loads((checkpoints / "moving" / "tickhouse.json").read_text())
    return [f"tickhouse-{noted['query_id']}-{partition}" for partition in range(noted["state_partitions"])]


def assert_exact(topics: str, home: Path) -> None:
    """Each result of all messages is there once: on the topic, and in the table that is its copy."""
    expected = evaluate(read_system(topics, None, None).messages)
    published = list(topic_results(read_system(topics, None, None).topics[MOVING_TOPIC], "stats", stats_value))
    assert {found.name for found in published} == set(expected.stats)
    assert len(published) == len(expected.stats) > 0
    assert [judge_stats(expected.stats[found.name], found.value) for found in published] == [None] * len(published)
    assert DeltaTable(str(home / "lakehouse" / "moving_stats")).count() == len(published)


def stop_family(process: processes.Process, number: signal.Signals) -> None:
    """Send a signal to a job's Python process, its JVM and its workers."""
    leader = psutil.Process(process.pid)
    for member in (*leader.children(recursive=True), leader):
        member.send_signal(number)
