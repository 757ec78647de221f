"""Polling with a clock that jumps, against the simulator and a real broker: only the wall clock is another one.

Most of it in this process; once the producer as a process of its own, whose clock is set from outside.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from orchestration.monitoring.status import producer_state
from producer.exchanges.binance_answers import LONGEST_BAN_SECONDS
from producer.heartbeat import Progress, utc_text
from producer.publish import Publisher
from producer.simulator import Failure, Simulator
from producer.sources import PollingSource
from tests.fake_clock import FakeClock
from tests.integration.test_producer_process import check_no_burst, new_topic, records
from tests.integration.test_producer_process import producer as producer_process

pytestmark = pytest.mark.integration


class Polling:
    """A source of ticks in a thread of this process."""

    def __init__(self, bootstrap: str, pause_file: Path, paused_until: object = 0) -> None:
        """`paused_until` is what an earlier run has noted."""
        self.simulator = Simulator(seed=5)
        self.simulator.start()
        pause_file.write_text(json.dumps({"url": self.simulator.url, "until": paused_until}))
        self.topic = f"ticks-{uuid.uuid4().hex[:12]}"
        self._bootstrap = bootstrap
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([NewTopic(self.topic, 1, 1)])[self.topic].result(30)
        self.progress = Progress("binance")
        self._stop = threading.Event()
        self._publisher = Publisher(
            bootstrap, self.topic, self.progress, self._stop, buffer_messages=1_000, delivery_seconds=60,
            wait_seconds=30, security={},
        )  # fmt: skip
        source = PollingSource(
            self.simulator.url, ("BTCUSDT",), 100, 5, pause_file, self._publisher, self.progress, self._stop
        )
        self._thread = threading.Thread(target=source.run)
        self._thread.start()

    def until(self, reached: Callable[[Progress], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not reached(self.progress):
            assert time.monotonic() < deadline, self.progress.snapshot()
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._publisher.flush(10)
        self._publisher.close()
        self.simulator.stop()

    def ticks(self) -> list[tuple[str, int]]:
        """Timestamp and the record's own time in ms, of all that was sent."""
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": uuid.uuid4().hex})
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        found: list[tuple[str, int]] = []
        while len(found) < self.progress.sent:
            message = consumer.poll(20)
            assert message is not None
            found.append((json.loads(message.value() or b"")["timestamp"], message.timestamp()[1]))
        consumer.close()
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the wall clock of this process by so many seconds; more than an hour ahead, the broker takes no record."""
    offset = 0.0
    seconds, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: seconds() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + round(offset * 1e9))

    def change(by: float) -> None:
        nonlocal offset
        offset += by

    return change


def test_a_clock_that_jumps_neither_stalls_nor_hurries_the_polls(
    broker: str, home: Path, clock: Callable[[float], None]
) -> None:
    polling = Polling(broker, home / "pause.json")
    progress = polling.progress
    try:
        polling.until(lambda now: now.sent >= 5)
        clock(1_800)
        sent = progress.sent
        polling.until(lambda now: now.sent >= sent + 5)
        clock(-1_800)
        polling.until(lambda now: now.skipped >= 5)
        # Asked as ever, nothing sent that would go back in time, and that is said.
        assert progress.snapshot()["state"] == "waiting"
        assert "the clock was set back: no ticks of BTCUSDT" in (progress.note or "")
        sent = progress.sent
        clock(1_800)
        polling.until(lambda now: now.sent >= sent + 5)
        clock(-0.25)
        polling.until(lambda now: now.sent >= sent + 20)
        assert progress.snapshot()["state"] == "running"
    finally:
        polling.stop()
    asked = [entry["monotonic"] for entry in polling.simulator.exchange.requests()["recent"]]
    between = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert max(between) < 2
    assert all(asked[index + 22] - asked[index] > 2 for index in range(len(asked) - 22)), "a burst"
    assert progress.missed < len(asked) / 2
    ticks = polling.ticks()
    times = [text for text, _ in ticks]
    assert times == sorted(set(times))
    assert all(datetime.fromisoformat(text).timestamp() * 1_000 <= sent_ms for text, sent_ms in ticks), (
        "from the future"
    )


@pytest.mark.parametrize("until", [4e9, 1e18, float("inf")])
def test_a_note_of_an_earlier_ban_that_cannot_be_right_is_not_obeyed_for_ever(
    broker: str, home: Path, until: float
) -> None:
    polling = Polling(broker, home / "pause.json", until)
    polling.until(lambda now: "banned until" in (now.note or ""))
    note = polling.progress.note or ""
    polling.stop()
    assert polling.simulator.exchange.requests()["count"] == 0
    told = datetime.fromisoformat(note.removeprefix("banned until ").split(",")[0]).timestamp()
    assert told == pytest.approx(time.time() + LONGEST_BAN_SECONDS, abs=20)


@pytest.mark.parametrize("until", [0, -1e18, float("nan"), "soon", None, []])
def test_a_note_that_is_over_or_means_nothing_holds_nothing_up(broker: str, home: Path, until: object) -> None:
    polling = Polling(broker, home / "pause.json", until)
    polling.until(lambda now: now.sent >= 1)
    polling.stop()


def test_a_ban_without_a_plausible_end_is_told_and_written_down_with_one(broker: str, home: Path) -> None:
    polling = Polling(broker, home / "pause.json")
    polling.simulator.exchange.script([Failure("418", 32_503_680_000)])
    polling.until(lambda now: "banned until" in (now.note or ""))
    note = polling.progress.note or ""
    polling.stop()
    assert "days, which no ban is" in note
    kept = json.loads((home / "pause.json").read_text())["until"]
    assert kept == pytest.approx(time.time() + LONGEST_BAN_SECONDS, abs=20)


def test_a_producer_whose_clock_is_set_says_so_and_never_goes_back_in_time(
    broker: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, topic = FakeClock(home), new_topic(broker)
    simulator = Simulator(seed=5)
    simulator.start()
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    try:
        with producer_process(broker, topic, home, binance_url=simulator.url) as run:
            run.until(lambda beat: beat["sent"] >= 5)
            clock.set(1_800)
            beat = run.until(lambda beat: beat["last_timestamp"] > utc_text(time.time() + 1_700))
            clock.set(0)
            beat = run.until(lambda beat: beat["skipped"] >= 5 and beat["state"] == "waiting")
            assert "the clock was set back: no ticks of BTCUSDT" in beat["note"]
            assert producer_state(beat, None, alive=True, suspended=False, now=time.time()) == "waiting"
            clock.set(1_800)
            sent = beat["sent"]
            run.until(lambda beat: beat["sent"] >= sent + 5 and beat["state"] == "running")
            # More than an hour ahead of the broker's clock: no tick of that time gets in, and it ends saying so.
            clock.set(7_200)
            assert run.wait(30) != 0
            beat = run.heartbeat
    finally:
        simulator.stop()
    assert beat["state"] == "failed"
    assert "InvalidTimestamp" in beat["error"]
    check_no_burst([entry["monotonic"] for entry in simulator.exchange.requests()["recent"]])
    times = [json.loads(record.value)["timestamp"] for record in records(broker, topic)]
    assert times == sorted(set(times))
    assert len(times) == beat["acknowledged"]
    assert datetime.fromisoformat(times[-1]).timestamp() < time.time() + 3_600
