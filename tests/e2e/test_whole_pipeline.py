"""One replay through everything, started as a user starts it; every value compared with the independent reference."""

from __future__ import annotations

import ipaddress
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from orchestration.local import processes
from tests.conftest import stop_all
from tests.reference.compare import compare_everything
from tests.reference.stream import generate, write_lines
from tests.running_stack import TICKHOUSE, stack, wait_until
from tickhouse.contract.topology import JOBS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.whole_machine]

HOME = "-ü ö 'q' \"Q\" =$HOME:a*;{b}&(c)~`x`<>!@+漢字e\u0301 "
"""All that a home's path may have in it, and that some program takes for something else unless it is quoted."""


@pytest.fixture
def home(tmp_path: Path, guard: Callable[[Path], None]) -> Iterator[Path]:
    """A home that is not there yet, of a name that is hard to write into other programs' configurations."""
    folder = tmp_path / HOME
    guard(folder)
    yield folder
    stop_all(folder)


NO_TICKS: list[tuple[bytes | None, bytes | None, int]] = [
    (None, b"x", 0),
    (b"BTCUSDT", None, 0),
    (b"BTCUSDT", b'{"symbol":"BTCUSDT","price":1,"timestamp":"2025-05-08T00:00:00Z"}', -(10**16)),
    (b"ETHUSDT", b'{"symbol":"BTCUSDT","price":1,"timestamp":"2025-05-08T00:00:00Z"}', 0),
    (b"BTCUSDT", b"[" * 100_000, 0),
    (b"\xff", b"\xef\xbb\xbf{}", 0),
]
"""Keys, values and times of messages for the price topic."""
FOREIGN = (
    b"x",
    None,
    b"{}",
    b'{"timestamp":"2025-05-08T00:00:00.000Z","symbol":"BTCUSDT","stats":[]}',
    b"\xff" * 1_000,
)
"""Values that no results topic has."""
TABLES = ("moving_stats", "zscores", "higher", "lower")
RESULT_TOPICS = ("btc-price-moving", "btc-price-zscore", "btc-price-higher", "btc-price-lower")


def drained(seen: dict[str, Any]) -> bool:
    return bool(seen["drained"])


def alive(home: Path) -> list[str]:
    recorded = {name: processes.recorded(home, name) for name in processes.recorded_names(home)}
    return [name for name, process in recorded.items() if process is not None and processes.alive(process)]


def listeners(home: Path) -> dict[str, set[str]]:
    """The addresses at which each recorded process and its descendants can be reached."""
    found: dict[str, set[str]] = {}
    for name in alive(home):
        process = processes.recorded(home, name)
        assert process is not None
        leader = psutil.Process(process.pid)
        for member in [leader, *leader.children(recursive=True)]:
            try:
                sockets = member.net_connections("inet")
            except psutil.NoSuchProcess:
                continue
            for one in sockets:
                if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                    found.setdefault(name, set()).add(one.laddr.ip)
    return found


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def send_what_is_no_tick_and_no_result(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for key, value, time in NO_TICKS:
        producer.produce("btc-price", value, key, partition=3, timestamp=time)
    for topic in RESULT_TOPICS:
        for value in FOREIGN:
            producer.produce(topic, value, "BTCUSDT", partition=0)
    assert producer.flush(30) == 0


def has_read(seen: dict[str, Any], messages: int) -> bool:
    streams = seen["streams"]
    return drained(seen) and bool(streams["prices"]["input_rows"] == messages)


def foreign(home: Path) -> dict[str, int]:
    """How many messages were left out of each table, as the streams say."""
    found: dict[str, int] = {}
    for name in JOBS:
        beat = processes.read_heartbeat(home, name) or {}
        found |= {table: said["messages"] for table, said in beat.get("foreign", {}).items()}
    return found


def rejected(home: Path, condition: str) -> int:
    statement = f"SELECT count(*) AS n FROM rejects WHERE {condition}"
    command = [TICKHOUSE, "sql", "--format", "json", "--home", str(home), statement]
    return int(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["n"])


def test_from_a_recording_to_mongodb_and_again(tmp_path: Path, tools: Path, home: Path) -> None:
    recording, output = tmp_path / "ticks.jsonl.gz", tmp_path / "up.log"
    lines = generate(seed=3, symbols=("BTCUSDT", "ETHUSDT", "SHIBUSDT"), ticks=9_000)
    write_lines(recording, lines)
    replay = ("--source", f"replay:{recording}", "--speed", "max")

    with stack(home, output, *replay) as up:
        seen = wait_until(drained, home, up, output, 400)
        report = compare_everything(seen["kafka_bootstrap"], seen["lakehouse"], seen["mongo_uri"], sent=recording)
        assert report.ok, report.text()
        assert seen["source"] == f"replay:{recording}"
        assert {name: stream["state"] for name, stream in seen["streams"].items()} == dict.fromkeys(
            ("prices", "moving", "zscore", "trend"), "running"
        )
        assert seen["streams"]["prices"]["input_rows"] == len(lines)
        reachable = listeners(home)
        assert reachable.keys() >= {"kafka", "mongod", "code-server", "webserver", "board", "prices", "zscore"}
        assert [(name, ip) for name, found in reachable.items() for ip in found if not is_loopback(ip)] == []
        rows = subprocess.run(
            [TICKHOUSE, "sql", "--format", "json", "--home", str(home), "SELECT count(*) AS n FROM zscores"],
            capture_output=True,
            check=True,
        )
        assert json.loads(rows.stdout)["n"] == seen["load"]["btc-price-zscore-1h"]["documents"]
        subprocess.run([TICKHOUSE, "down", "--home", str(home)], check=True, timeout=180)
        assert up.wait(timeout=10) == 0
    assert alive(home) == []

    with stack(home, output, *replay) as up:
        again = wait_until(drained, home, up, output, 240)
        # Nothing was sent, computed or loaded a second time.
        assert {name: stream["output_rows"] for name, stream in again["streams"].items()} == {
            name: stream["output_rows"] for name, stream in seen["streams"].items()
        }
        report = compare_everything(again["kafka_bootstrap"], again["lakehouse"], again["mongo_uri"], sent=recording)
        assert report.ok, report.text()
        send_what_is_no_tick_and_no_result(again["kafka_bootstrap"])
        spoilt = wait_until(lambda seen: has_read(seen, len(lines) + len(NO_TICKS)), home, up, output, 240)
        assert {name: (stream["state"], stream["output_rows"]) for name, stream in spoilt["streams"].items()} == {
            name: ("running", stream["output_rows"]) for name, stream in again["streams"].items()
        }
        wait_until(lambda _: foreign(home) == dict.fromkeys(TABLES, len(FOREIGN)), home, up, output, 120)
        assert rejected(home, "topic = 'btc-price' AND partition = 3") >= len(NO_TICKS)
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=180) == 0
    assert alive(home) == []

    subprocess.run([TICKHOUSE, "reset", "--yes", "--home", str(home)], check=True, timeout=60)
    assert not home.exists(), "all that is in it was made by the stack"
    assert {path.name for path in tmp_path.iterdir()} == {recording.name, output.name}, "nothing beside the home"
