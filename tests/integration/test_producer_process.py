"""`python -m producer` as a process of its own, against the simulator and a real broker."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from orchestration.local.java import Java
from producer.simulator import FAILURES, GOOD, Failure, Simulator
from tests.own_broker import OwnBroker
from tests.peers import Peer

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).resolve().parents[2]
SYMBOLS = ("BNBUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


class Record(NamedTuple):
    partition: int
    key: bytes | None
    value: bytes


@pytest.fixture
def topic(broker: str) -> str:
    return new_topic(broker)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    server = Simulator(seed=11)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def broker_of_this_module(
    java: Java, tools: Path, tmp_path_factory: pytest.TempPathFactory, guard: Callable[[Path], None]
) -> Iterator[OwnBroker]:
    home = tmp_path_factory.mktemp("own-broker")
    guard(home)
    node = OwnBroker(home, java, tools)
    yield node
    node.stop(1)


@pytest.fixture
def own_broker(broker_of_this_module: OwnBroker) -> OwnBroker:
    """A broker that is running when the test begins, and that the test may leave stopped."""
    if not broker_of_this_module.running:
        broker_of_this_module.start()
    return broker_of_this_module


def new_topic(bootstrap: str, partitions: int = 4, **config: str) -> str:
    name = f"ticks-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)
    return name


def records(bootstrap: str, topic: str) -> list[Record]:
    """All records, each partition's in offset order, read with a client that is not the producer's."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    try:
        found: list[Record] = []
        for partition in consumer.list_topics(topic, 30).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)
            consumer.assign([TopicPartition(topic, partition, low)])
            read = low
            while read < high:
                message = consumer.poll(30)
                assert message is not None, "the broker sent nothing for 30 s"
                assert message.error() is None, message.error()
                offset, value = message.offset(), message.value()
                assert offset is not None
                assert value is not None, "a tombstone"
                read = offset + 1
                found.append(Record(partition, message.key(), value))
        return found
    finally:
        consumer.close()


class Run:
    """A producer process and what it tells of itself."""

    def __init__(self, process: subprocess.Popen[str], home: Path, log: Path) -> None:
        self.process = process
        self._home = home
        self._log = log

    @property
    def heartbeat(self) -> dict[str, Any]:
        path = self._home / "run" / "producer.heartbeat.json"
        # Before the process has written its own, the one of an earlier run lies there.
        beat = json.loads(path.read_text()) if path.exists() else {}
        return beat if beat.get("pid") == self.process.pid else {}

    @property
    def log(self) -> str:
        return self._log.read_text()

    def until(self, reached: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
        """Wait for a heartbeat; the process must be alive until then, or end with it."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            beat = self.heartbeat
            if beat and reached(beat):
                return beat
            assert not ended, f"ended early with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"not reached, last {beat}:\n{self.log}"
            time.sleep(0.02)

    def wait(self, seconds: float = 60) -> int:
        return self.process.wait(seconds)

    def stop(self, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextmanager
def producer(bootstrap: str, topic: str, home: Path, **settings: object) -> Iterator[Run]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("TICKHOUSE_")}
    own = {"home": home, "kafka_bootstrap": bootstrap, "ticks_topic": topic, **settings}
    environment = {**inherited, **{f"TICKHOUSE_{name.upper()}": str(setting) for name, setting in own.items()}}
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"producer-{uuid.uuid4().hex[:6]}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "producer"], cwd=PROJECT, env=environment, stdout=output, stderr=output, text=True
        )
    try:
        yield Run(process, home, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def served(simulator: Simulator) -> list[list[dict[str, str]]]:
    """The prices of each good answer, in order."""
    answers = [json.loads(entry["prices"]) for entry in simulator.exchange.requests()["recent"] if entry["prices"]]
    return [answer if isinstance(answer, list) else [answer] for answer in answers]


def check_ticks(
    found: list[Record], answers: list[list[dict[str, str]]], step_ms: int, unsent: int = 0
) -> dict[str, list[int]]:
    """Every good answer is one tick for each symbol, digit for digit; returns each symbol's timestamps in ms.

    The last `unsent` answers may be missing: the process was killed between receiving and sending.
    """
    times: dict[str, list[int]] = {}
    prices: dict[str, list[str]] = {}
    partitions: dict[str, set[int]] = {}
    for partition, key, value in found:
        document = json.loads(value, parse_float=str, parse_int=str)
        moment = datetime.fromisoformat(document["timestamp"])
        symbol, price = document["symbol"], document["price"]
        text = moment.astimezone(UTC).isoformat(timespec="microseconds")
        assert value.decode() == f'{{"symbol":"{symbol}","price":{price},"timestamp":"{text}"}}'
        assert key == symbol.encode()
        times.setdefault(symbol, []).append(round(moment.timestamp() * 1_000))
        prices.setdefault(symbol, []).append(price)
        partitions.setdefault(symbol, set()).add(partition)
    for symbol in times:
        assert len(partitions[symbol]) == 1
        assert times[symbol] == sorted(set(times[symbol])), "an identity twice or back in time"
        assert all(time % step_ms == 0 for time in times[symbol])
        expected = [entry["price"] for answer in answers for entry in answer if entry["symbol"] == symbol]
        assert len(expected) - unsent <= len(prices[symbol]) <= len(expected)
        assert prices[symbol] == expected[: len(prices[symbol])]
    return times


def check_no_burst(asked: list[float]) -> None:
    """No stretch of time holds more polls than it holds steps of 100 ms, but for how late a single one may be."""
    assert len(asked) > 22
    assert all(asked[index + 22] - asked[index] > 2 for index in range(len(asked) - 22))


def test_five_symbols_ten_times_a_second(broker: str, topic: str, home: Path, simulator: Simulator) -> None:
    with producer(broker, topic, home, binance_url=simulator.url, symbols=",".join(SYMBOLS)) as run:
        run.until(lambda beat: beat["sent"] >= 200)
        assert run.stop() == 0
        beat = run.heartbeat
    assert (beat["state"], beat["error"], beat["failures"], beat["skipped"]) == ("stopped", None, {}, 0)
    found = records(broker, topic)
    assert beat["sent"] == beat["acknowledged"] == len(found)
    answers = served(simulator)
    times = check_ticks(found, answers, step_ms=100)
    assert set(times) == set(SYMBOLS)
    asked = [entry["monotonic"] for entry in simulator.exchange.requests()["recent"]]
    # As many polls as steps went by, give or take those that a busy machine missed and told of.
    assert round((asked[-1] - asked[0]) / 0.1) + 1 - len(asked) == pytest.approx(beat["missed"], abs=2)
    check_no_burst(asked)
    now = time.time() * 1_000
    assert all(now - 60_000 < time_ms <= now for time_ms in times["BTCUSDT"])


def test_a_stall_is_not_caught_up_on(broker: str, topic: str, home: Path, simulator: Simulator) -> None:
    with producer(broker, topic, home, binance_url=simulator.url) as run:
        run.until(lambda beat: beat["sent"] >= 5)
        simulator.exchange.script([Failure("slow", 1.05)])
        run.until(lambda beat: beat["missed"] >= 8)
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        run.process.send_signal(signal.SIGCONT)
        beat = run.until(lambda beat: beat["missed"] >= 25)
        run.until(lambda later: later["sent"] >= beat["sent"] + 30)
        assert run.stop() == 0
    asked = [entry["monotonic"] for entry in simulator.exchange.requests()["recent"]]
    check_no_burst(asked)


def test_a_process_that_is_stopped_for_a_while_takes_no_old_price_for_a_new_one(
    broker: str, topic: str, home: Path, simulator: Simulator
) -> None:
    with producer(broker, topic, home, binance_url=simulator.url, answer_seconds=1.5) as run:
        run.until(lambda beat: beat["sent"] >= 5)
        simulator.exchange.script([Failure("slow", 0.5)])
        deadline = time.monotonic() + 10
        while simulator.exchange.requests()["scripted"]:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        run.process.send_signal(signal.SIGSTOP)  # while the answer is under way
        time.sleep(2.5)
        run.process.send_signal(signal.SIGCONT)
        beat = run.until(lambda beat: beat["failures"] == {"timeout": 1})
        run.until(lambda later: later["sent"] >= beat["sent"] + 10)
        assert run.stop() == 0
    times = check_ticks(records(broker, topic), served(simulator), step_ms=100)["BTCUSDT"]
    assert sum(later - earlier > 2_000 for earlier, later in itertools.pairwise(times)) == 1
    check_no_burst([entry["monotonic"] for entry in simulator.exchange.requests()["recent"]])


def test_a_symbol_that_the_exchange_drops_leaves_the_others_alone_and_comes_back(
    broker: str, topic: str, home: Path, simulator: Simulator
) -> None:
    def sent_after(beat: dict[str, Any], count: int) -> Callable[[dict[str, Any]], bool]:
        return lambda later: later["state"] == "running" and later["sent"] >= beat["sent"] + count

    settings = {"binance_url": simulator.url, "symbols": "BTCUSDT,ETHUSDT,SOLUSDT"}
    with producer(broker, topic, home, **settings) as run:
        run.until(lambda beat: beat["sent"] >= 15)
        simulator.exchange.withdraw("ETHUSDT", silently=True)
        beat = run.until(lambda beat: "no price of ETHUSDT: missing" in (beat["note"] or ""))
        run.until(sent_after(beat, 10))
        simulator.exchange.withdraw("ETHUSDT")
        beat = run.until(lambda beat: "no price of ETHUSDT: Invalid symbol" in (beat["note"] or ""))
        assert beat["failures"]["400"] == 1
        run.until(sent_after(beat, 10))
        simulator.exchange.withdraw()
        beat = run.until(lambda beat: beat["state"] == "running" and beat["note"] is None)
        run.until(sent_after(beat, 15))
        simulator.exchange.withdraw("BTCUSDT", "ETHUSDT", "SOLUSDT")
        beat = run.until(lambda beat: beat["state"] == "waiting" and beat["failures"]["400"] >= 2)
        simulator.exchange.withdraw()
        run.until(sent_after(beat, 15))
        assert run.stop() == 0
        assert run.heartbeat["failures"]["400"] <= 5
    gaps: dict[str, list[float]] = {}
    for record in records(broker, topic):
        tick = json.loads(record.value)
        gaps.setdefault(tick["symbol"], []).append(datetime.fromisoformat(tick["timestamp"]).timestamp())
    longest = {
        symbol: max(later - earlier for earlier, later in itertools.pairwise(times)) for symbol, times in gaps.items()
    }
    assert all(times == sorted(set(times)) for times in gaps.values())
    # When none was known there were gaps for all; that of the one that was dropped lasted until it was looked for.
    assert longest["ETHUSDT"] > 5 > max(longest["BTCUSDT"], longest["SOLUSDT"]), longest
    check_no_burst([entry["monotonic"] for entry in simulator.exchange.requests()["recent"]])


def test_memory_and_requests_stay_bounded_whatever_the_exchange_sends(broker: str, topic: str, home: Path) -> None:
    block = b"x" * 65_536
    bomb = gzip.compress(b"\0" * 200_000_000, 1)
    zipped = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    good = b'HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{"symbol":"BTCUSDT","price":"64000"}'
    attacks = (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n", block),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + block + b"\r\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + zipped, bomb),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", block),
        (b"HTTP/1.1 418 Banned\r\n" + zipped, bomb),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    )
    asked: list[float] = []

    def behave(connection: socket.socket, _head: bytes) -> None:
        asked.append(time.monotonic())
        number, attack = divmod(len(asked), 2)
        if not attack:
            connection.sendall(good)
            return
        start, again = attacks[number % len(attacks)]
        connection.sendall(start)
        while True:
            connection.sendall(again)

    server = Peer(behave)
    with producer(broker, topic, home, binance_url=server.url) as run:
        run.until(lambda beat: beat["sent"] >= 1)
        before = peak_memory(run.process.pid)
        beat = run.until(lambda beat: beat["failures"].get("oversized", 0) >= len(attacks) + 2)
        assert peak_memory(run.process.pid) - before < 30_000_000
        assert set(beat["failures"]) == {"oversized"}
        assert run.stop() == 0
    server.stop()
    # After each failure there is a pause, however many good answers are between them.
    assert all(asked[index + 2] - asked[index] > 0.25 for index in range(len(asked) - 2))


def peak_memory(pid: int) -> int:
    """The most memory that a process has ever used, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1_024


def test_every_failure_is_counted_and_none_is_sent(broker: str, topic: str, home: Path, simulator: Simulator) -> None:
    kinds = [kind for kind in FAILURES if kind not in ("400", "418", "429", "429-silent")]
    seconds = {"slow": 2.0, "trickle": 0.5, "trickle-headers": 0.5}
    script = [Failure(GOOD, 0, 2)]
    for kind in kinds:
        script += [Failure(kind, seconds.get(kind, 1.0)), Failure(GOOD, 0, 2)]
    simulator.exchange.script(script)
    settings = {"binance_url": simulator.url, "symbols": "BTCUSDT,ETHUSDT", "answer_seconds": 1.2}
    with producer(broker, topic, home, **settings) as run:
        run.until(lambda beat: sum(beat["failures"].values()) >= len(kinds) and beat["state"] == "running", 90)
        assert run.stop() == 0
        beat = run.heartbeat
    assert beat["failures"] == {
        "403": 1, "451": 1, "500": 1, "502": 1, "503": 1, "504": 1, "redirect": 1, "garbage": 4, "oversized": 1,
        "price": 1, "timeout": 3, "connection": 2,
    }  # fmt: skip
    # Answers that came too late were good ones to the simulator, but the script says "slow" there.
    check_ticks(records(broker, topic), served(simulator), step_ms=100)


def test_failures_that_go_on_are_asked_for_ever_less_often(
    broker: str, topic: str, home: Path, simulator: Simulator
) -> None:
    simulator.exchange.script([Failure("503", 0, 5)])
    with producer(broker, topic, home, binance_url=simulator.url) as run:
        waiting = run.until(lambda beat: beat["failures"].get("503", 0) >= 3)
        assert waiting["state"] == "waiting"
        assert "503" in waiting["note"]
        run.until(lambda beat: beat["state"] == "running" and beat["sent"] > 0)
        assert run.stop() == 0
    asked = [entry["monotonic"] for entry in simulator.exchange.requests()["recent"]][:6]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    for pause, full in zip(pauses, (0.5, 1, 2, 4, 8), strict=True):
        assert full / 2 <= pause < full + 3  # the latter on a busy machine


@pytest.mark.parametrize("kind", ["429", "418"])
def test_nothing_is_asked_during_a_ban_even_after_a_restart(
    broker: str, topic: str, home: Path, simulator: Simulator, kind: str
) -> None:
    simulator.exchange.script([Failure(GOOD, 0, 3), Failure(kind, 6)])
    with producer(broker, topic, home, binance_url=simulator.url) as run:
        beat = run.until(lambda beat: kind in beat["failures"])
        assert beat["state"] == "waiting"
        assert " until " in beat["note"] or " at " in beat["note"]
        run.kill()
    assert simulator.exchange.requests()["count"] == 4
    with producer(broker, topic, home, binance_url=simulator.url) as run:
        run.until(lambda beat: "banned until" in (beat["note"] or ""))
        run.until(lambda beat: beat["sent"] >= 3)
        assert run.stop() == 0
    asked = simulator.exchange.requests()
    assert asked["during_ban"] == 0
    times = [entry["monotonic"] for entry in asked["recent"]]
    assert 6 <= times[4] - times[3] < 15
    check_ticks(records(broker, topic), served(simulator), step_ms=100)


def test_a_stop_does_not_wait_for_the_end_of_a_ban(broker: str, topic: str, home: Path, simulator: Simulator) -> None:
    simulator.exchange.script([Failure("418", 600)])
    with producer(broker, topic, home, binance_url=simulator.url) as run:
        beat = run.until(lambda beat: "418" in beat["failures"])
        assert "banned until" in beat["note"]
        began = time.monotonic()
        assert run.stop() == 0
        assert time.monotonic() - began < 3
        assert run.heartbeat["state"] == "stopped"


def test_a_symbol_that_does_not_exist_ends_it_with_a_sentence(
    broker: str, topic: str, home: Path, simulator: Simulator
) -> None:
    with producer(broker, topic, home, binance_url=simulator.url, symbols="BTCUSDT,NOSUCH") as run:
        assert run.wait(30) == 2
        beat = run.heartbeat
    assert beat["state"] == "failed"
    assert "Invalid symbol" in beat["error"]
    assert "TICKHOUSE_SYMBOLS" in beat["error"]
    assert simulator.exchange.requests()["count"] == 1
    assert records(broker, topic) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"speed": "fast"}, "TICKHOUSE_SPEED"),
        ({"source": "kraken"}, "TICKHOUSE_SOURCE"),
        ({"source": "replay:/nowhere/to/be/found"}, "there is no file"),
    ],
)
def test_a_wrong_setting_ends_it_with_a_sentence(home: Path, settings: dict[str, str], told: str) -> None:
    with producer("127.0.0.1:1", "none", home, **settings) as run:
        assert run.wait(30) == 2
        assert told in run.log
        assert "Traceback" not in run.log


def test_one_producer_for_a_home(broker: str, topic: str, home: Path, simulator: Simulator) -> None:
    with producer(broker, topic, home, binance_url=simulator.url) as first:
        first.until(lambda beat: beat["sent"] > 0)
        with producer(broker, topic, home, binance_url=simulator.url) as second:
            assert second.wait(30) == 2
            assert "another producer is running" in second.log
        assert first.stop() == 0


def test_a_topic_that_is_missing_is_waited_for_then_told(broker: str, home: Path, simulator: Simulator) -> None:
    with producer(broker, "none-such", home, binance_url=simulator.url, broker_wait_seconds=3) as run:
        assert run.until(lambda beat: "no topic" in (beat["note"] or ""))["state"] == "waiting"
        assert run.wait(30) == 1
        beat = run.heartbeat
    assert (beat["state"], "none-such" in beat["error"]) == ("failed", True)


def test_a_broker_that_is_missing_is_waited_for_then_told(home: Path) -> None:
    began = time.monotonic()
    with producer("127.0.0.1:1", "ticks", home, broker_wait_seconds=2) as run:
        assert run.wait(30) == 1
        beat = run.heartbeat
        assert "Traceback" not in run.log
    assert time.monotonic() - began < 10
    assert beat["state"] == "failed"
    assert "TICKHOUSE_KAFKA_BOOTSTRAP" in beat["error"]


def test_a_stop_while_waiting_for_the_broker(home: Path) -> None:
    with producer("127.0.0.1:1", "ticks", home) as run:
        run.until(lambda beat: beat["state"] == "waiting")
        assert run.stop(10) == 0
        assert run.heartbeat["state"] == "stopped"


def test_what_the_broker_refuses_fails_loudly_and_leaves_no_gap(broker: str, tmp_path: Path, home: Path) -> None:
    topic = new_topic(broker, partitions=1, **{"max.message.bytes": "2000"})
    recording = tmp_path / "recording"
    tick = b'{"symbol":"BTCUSDT","price":1,"timestamp":"2025-05-08T00:00:00Z"}'
    before = [b"%d" % number for number in range(50)]
    recording.write_bytes(b"\n".join([tick, *before, b"x" * 5_000, *[b"after"] * 500, b""]))
    with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
        assert run.wait(30) == 1
        beat = run.heartbeat
    assert beat["state"] == "failed"
    assert "not delivered" in beat["error"]
    values = [record.value for record in records(broker, topic)]
    assert values == [tick, *before][: len(values)]


# A broker that goes away


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_nothing_is_lost_while_the_broker_is_away(own_broker: OwnBroker, home: Path, how: str) -> None:
    simulator = Simulator(seed=3)
    simulator.start()
    topic = new_topic(own_broker.bootstrap)
    with producer(own_broker.bootstrap, topic, home, binance_url=simulator.url, symbols=",".join(SYMBOLS)) as run:
        run.until(lambda beat: beat["acknowledged"] >= 100)
        (own_broker.stop if how == "stopped" else own_broker.kill)()
        away = run.until(lambda beat: beat["state"] == "waiting")
        assert "confirmed nothing" in away["note"]
        # Prices are taken in while the broker is away.
        held = run.until(lambda beat: beat["sent"] - beat["acknowledged"] > 500)
        own_broker.start()
        back = run.until(lambda beat: beat["acknowledged"] >= held["sent"], 30)
        run.until(lambda beat: beat["state"] == "running" and beat["sent"] >= back["sent"] + 50)
        assert run.stop() == 0
        beat = run.heartbeat
    assert (beat["state"], beat["sent"]) == ("stopped", beat["acknowledged"])
    times = check_ticks(records(own_broker.bootstrap, topic), served(simulator), step_ms=100)
    # Ticks keep their time of receipt: those of the outage are where the outage was, not after it.
    steps = [later - earlier for earlier, later in itertools.pairwise(times["BTCUSDT"])]
    assert max(steps) < 3_000
    simulator.stop()


def test_a_full_buffer_takes_no_more_and_loses_nothing(own_broker: OwnBroker, home: Path, simulator: Simulator) -> None:
    topic = new_topic(own_broker.bootstrap)
    settings = {"binance_url": simulator.url, "buffer_messages": 30}
    with producer(own_broker.bootstrap, topic, home, **settings) as run:
        run.until(lambda beat: beat["acknowledged"] >= 20)
        own_broker.kill()
        full = run.until(lambda beat: "buffer is full" in (beat["note"] or ""))
        assert full["sent"] - full["acknowledged"] == 30
        asked = simulator.exchange.requests()["count"]
        time.sleep(1)
        assert simulator.exchange.requests()["count"] == asked, "asks for prices that it cannot keep"
        own_broker.start()
        run.until(lambda beat: beat["acknowledged"] >= full["sent"] + 10, 30)
        assert run.stop() == 0
    check_ticks(records(own_broker.bootstrap, topic), served(simulator), step_ms=100)


def test_a_stop_while_the_broker_is_away_says_what_may_be_lost(
    own_broker: OwnBroker, home: Path, simulator: Simulator
) -> None:
    topic = new_topic(own_broker.bootstrap)
    with producer(own_broker.bootstrap, topic, home, binance_url=simulator.url, flush_seconds=2) as run:
        run.until(lambda beat: beat["acknowledged"] >= 10)
        own_broker.kill()
        run.until(lambda beat: beat["sent"] - beat["acknowledged"] > 10)
        began = time.monotonic()
        assert run.stop() == 1
        assert time.monotonic() - began < 12
        beat = run.heartbeat
    assert beat["state"] == "failed"
    assert f"{beat['sent'] - beat['acknowledged']} messages were not confirmed" in beat["error"]


def test_a_broker_that_comes_late_and_a_replay_through_its_outages(
    own_broker: OwnBroker, home: Path, tmp_path: Path
) -> None:
    """The broker comes after the producer, is killed twice while the replay runs, and the producer is killed once."""
    lines = recording_lines(120_000)
    recording = write_recording(tmp_path / "recording.gz", lines)
    topic = new_topic(own_broker.bootstrap)
    own_broker.stop()
    settings = {"source": f"replay:{recording}", "speed": "max"}
    with producer(own_broker.bootstrap, topic, home, **settings) as run:
        run.until(lambda beat: "no Kafka broker" in (beat["note"] or ""))
        own_broker.start()
        run.until(lambda beat: beat["acknowledged"] >= 10_000)
        own_broker.kill()
        time.sleep(2)
        own_broker.start()
        run.until(lambda beat: beat["acknowledged"] >= 30_000)
        run.kill()
    own_broker.kill()
    own_broker.start()
    with producer(own_broker.bootstrap, topic, home, **settings) as run:
        run.until(lambda beat: beat["acknowledged"] >= 5_000)
        own_broker.kill()
        time.sleep(2)
        own_broker.start()
        assert run.wait(120) == 0, run.log
        assert run.heartbeat["state"] == "ended"
    check_replayed(records(own_broker.bootstrap, topic), lines)


# Replays

BAD_LINES = (
    b"", b" ", b"null", b"{", b"\xff\xfe\x00", b'{"symbol":7,"price":1}', b'{"symbol":"BTCUSDT"', b"\r", b"[]", b'"x"',
    b'{"symbol":"BTCUSDT","price":NaN,"timestamp":"2025-05-08T04:12:38Z"}', b"x" * 50_000,
    b'{"symbol":"ETHUSDT","price":1,"timestamp":"2099-01-01T00:00:00Z"}', b'{"symbol":"\\ud800"}',
    b"\x0b\x85\xe2\x80\xa8",
)  # fmt: skip


def recording_lines(count: int, seed: int = 1) -> list[bytes]:
    """Ticks of five symbols, unlike each other, with one line in fifty bad in some way, some lines twice."""
    chance = random.Random(seed)
    lines: list[bytes] = []
    start = datetime(2025, 5, 8, tzinfo=UTC).timestamp()
    for number in range(count):
        if number % 50 == 17:
            lines.append(chance.choice(BAD_LINES))
            continue
        time_s = start + number // 5 * 0.1 - (chance.uniform(0, 9) if number % 20 == 3 else 0)
        text = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="microseconds")
        symbol, price = SYMBOLS[number % 5], f"{chance.uniform(100, 200):.2f}"
        lines.append(f'{{"symbol":"{symbol}","price":{price},"timestamp":"{text}"}}'.encode())
    return lines


def write_recording(path: Path, lines: list[bytes]) -> Path:
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def key_of(line: bytes) -> bytes | None:
    """Written apart from the code under test; the bad lines above are all that it needs to be right for."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        symbol = json.loads(line.decode(), parse_constant=refuse)["symbol"]
        return symbol.encode() if isinstance(symbol, str) else None
    except (ValueError, TypeError, KeyError):
        return None


def check_replayed(found: list[Record], lines: list[bytes]) -> None:
    """Each line exactly once, with its key; in each partition the lines come in the order of the file."""
    assert sorted(record.value for record in found) == sorted(lines)
    partition_of: dict[bytes, set[int]] = {}
    for partition, key, value in found:
        assert key == key_of(value)
        partition_of.setdefault(key if key is not None else b"line " + value, set()).add(partition)
    assert all(len(partitions) == 1 for partitions in partition_of.values())
    by_partition: dict[int, list[bytes]] = {}
    for line in lines:
        key = key_of(line)
        (partition,) = partition_of[key if key is not None else b"line " + line]
        by_partition.setdefault(partition, []).append(line)
    for partition, expected in by_partition.items():
        assert [record.value for record in found if record.partition == partition] == expected


@pytest.mark.parametrize("name", ["recording.jsonl", "recording.jsonl.gz"])
def test_a_replay_sends_every_line_byte_for_byte_once(
    broker: str, topic: str, tmp_path: Path, home: Path, name: str
) -> None:
    lines = recording_lines(3_000)
    recording = write_recording(tmp_path / name, lines)
    for repetition in range(2):
        with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
            assert run.wait() == 0, run.log
            beat = run.heartbeat
        assert beat["state"] == "ended"
        assert beat["sent"] == beat["acknowledged"] == (0 if repetition else len(lines))
        check_replayed(records(broker, topic), lines)
    other = write_recording(tmp_path / ("again" if name.endswith(".gz") else "again.gz"), lines)
    with producer(broker, topic, home, source=f"replay:{other}", speed="max") as run:
        assert run.wait() == 0
        assert run.heartbeat["sent"] == 0


def test_the_keys_partition_is_the_one_that_all_clients_agree_on(
    broker: str, topic: str, home: Path, tmp_path: Path, simulator: Simulator
) -> None:
    recording = write_recording(tmp_path / "recording", recording_lines(100))
    with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
        assert run.wait() == 0
    with producer(broker, topic, home, binance_url=simulator.url, symbols=",".join(SYMBOLS)) as run:
        run.until(lambda beat: beat["sent"] >= 10)
        assert run.stop() == 0
    partitions: dict[bytes | None, set[int]] = {}
    for partition, key, _ in records(broker, topic):
        if key is not None:
            partitions.setdefault(key, set()).add(partition)
    assert {key: len(found) for key, found in partitions.items()} == dict.fromkeys(
        (symbol.encode() for symbol in SYMBOLS), 1
    )
    assert len(set().union(*partitions.values())) > 1


def test_a_replay_that_is_killed_goes_on_exactly_where_it_was(
    broker: str, topic: str, tmp_path: Path, home: Path
) -> None:
    lines = recording_lines(60_000)
    recording = write_recording(tmp_path / "recording.gz", lines)
    chance = random.Random(5)
    kills = 0
    for attempt in range(20):
        with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
            if attempt < 4:
                run.until(lambda beat: beat["state"] in ("running", "ended"))
                # Not after a heartbeat: at any moment of the sending, which takes some seconds.
                time.sleep(chance.uniform(0.05, 0.7))
                if run.process.poll() is None:
                    run.kill()
                    kills += 1
                    continue
            assert run.wait(120) == 0, run.log
            if run.heartbeat["state"] == "ended":
                break
    assert kills >= 2, "the machine is too fast for this test: make the recording longer"
    check_replayed(records(broker, topic), lines)


def test_a_replay_is_found_below_what_others_have_sent_since(
    broker: str, topic: str, tmp_path: Path, home: Path
) -> None:
    lines, others = recording_lines(5_000), recording_lines(9_000, seed=2)
    first = write_recording(tmp_path / "first", lines)
    second = write_recording(tmp_path / "second", others)
    for recording, sent in ((first, 5_000), (second, 9_000), (first, 0), (second, 0)):
        with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
            assert run.wait() == 0, run.log
            assert run.heartbeat["sent"] == sent
    assert sorted(record.value for record in records(broker, topic)) == sorted(lines + others)


def test_a_stopped_replay_goes_on_too(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    lines = recording_lines(2_000)
    recording = write_recording(tmp_path / "recording", lines)
    with producer(broker, topic, home, source=f"replay:{recording}", speed="20") as run:
        run.until(lambda beat: beat["sent"] >= 100)
        assert run.stop() == 0
        beat = run.heartbeat
        assert beat["state"] == "stopped"
        assert 100 <= beat["sent"] == beat["acknowledged"] == len(records(broker, topic)) < 2_000
    with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
        assert run.wait() == 0
    check_replayed(records(broker, topic), lines)


def test_another_number_of_partitions_is_not_guessed_about(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    recording = write_recording(tmp_path / "recording", recording_lines(100))
    with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
        assert run.wait() == 0
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result(30)
    with producer(broker, topic, home, source=f"replay:{recording}", speed="max") as run:
        assert run.wait() == 1
        assert "partitions" in run.heartbeat["error"]


def test_a_replay_keeps_the_recorded_pace(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    lines = recording_lines(1_000)  # 20 s
    recording = write_recording(tmp_path / "recording", lines)
    with producer(broker, topic, home, source=f"replay:{recording}", speed="5") as run:
        run.until(lambda beat: beat["state"] == "running" and beat["sent"] > 0)
        began = time.monotonic()
        half = run.until(lambda beat: beat["sent"] >= 500)
        assert 1 < time.monotonic() - began < 10
        assert half["last_timestamp"].startswith("2025-05-08T00:00:")
        assert run.wait() == 0
        assert 3 < time.monotonic() - began < 15
    check_replayed(records(broker, topic), lines)


def test_a_replay_shifted_to_now(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    lines = [
        b'{"symbol":"BTCUSDT","timestamp":"2024-05-08T04:12:38Z"}',
        b'{"symbol":"BTCUSDT","price":99190.480,"timestamp":"2025-05-08T04:12:38.300000+00:00"}',
        b'{"symbol":"BTCUSDT","price":"1","timestamp":"2025-05-08T04:12:38.4Z", "x":"2025-05-08T04:12:38.4Z"}',
        b'{"symbol":"BTCUSDT","timestamp":"never"}',
        b'{"symbol":"BTCUSDT","price":2,"tim\\u0065stamp":"2025-05-08T04:12:39.300000+00:00"}',
    ]
    recording = write_recording(tmp_path / "recording", lines)
    before = time.time()
    with producer(broker, topic, home, source=f"replay:{recording}", replay_timestamps="now") as run:
        assert run.wait() == 0
    after = time.time()
    found = records(broker, topic)
    assert {lines[0], lines[3]} < {record.value for record in found}
    ticks = [record.value for record in found if b"2025" in record.value or b'"price"' in record.value]
    first, second, third = (json.loads(value) for value in ticks)
    times = [datetime.fromisoformat(tick["timestamp"]).timestamp() for tick in (first, second, third)]
    assert before - 0.1 <= times[0] <= after
    assert [round(time_s - times[0], 6) for time_s in times] == [0, 0.1, 1]
    assert round(times[0] * 1_000) % 100 == 0
    assert b'"price":99190.480,' in ticks[0]
    assert second["x"] == "2025-05-08T04:12:38.4Z"
    # The earlier run's shift holds for the rest of it: nothing comes twice under another time.
    with producer(broker, topic, home, source=f"replay:{recording}", replay_timestamps="now") as run:
        assert run.wait() == 0
        assert run.heartbeat["sent"] == 0


def test_a_recording_that_has_grown_goes_on_where_it_ended(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    lines = recording_lines(300)
    recording = tmp_path / "recording"

    def send(content: bytes, **settings: str) -> Any:
        recording.write_bytes(content)
        with producer(broker, topic, home, source=f"replay:{recording}", speed="max", **settings) as run:
            assert run.wait() == 0, run.log
            return run.heartbeat

    def content(count: int) -> bytes:
        return b"".join(line + b"\n" for line in lines[:count])

    half = lines[100][: len(lines[100]) // 2]
    assert send(content(100) + half)["sent"] == 101
    # The line that was not finished is sent anew now that it is; in another container, too.
    assert send(gzip.compress(content(150)) + gzip.compress(content(200)[len(content(150)) :]))["sent"] == 100
    assert send(content(200))["sent"] == 0
    check_replayed(records(broker, topic), [*lines[:100], half, *lines[100:200]])
    beat = send(content(300)[:-1])
    assert beat["sent"] == 100
    assert "200 lines of it were sent before: it goes on behind them" in beat["found"]
    assert send(content(300))["sent"] == 0, "the newline alone is no new line"
    # Another beginning makes another recording, here of ticks that are all there already.
    beat = send(b"x\n" + content(300), replay_sort="true")
    assert beat["sent"] == 301
    assert "301 messages of" in beat["delivered"][0]
    assert " 0 with results; " in beat["delivered"][0]
    found = records(broker, topic)
    assert len(found) == 602
    assert {record.key for record in found} >= {symbol.encode() for symbol in SYMBOLS}
    assert not (home / "run" / "recording").exists()


def test_empty_recording(broker: str, topic: str, tmp_path: Path, home: Path) -> None:
    recording = write_recording(tmp_path / "recording", [])
    with producer(broker, topic, home, source=f"replay:{recording}") as run:
        assert run.wait() == 0
        assert run.heartbeat["state"] == "ended"
