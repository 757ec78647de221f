"""The main processes of the containers, as processes: what they serve, and that they end everything when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestration.local import processes
from orchestration.local.broker import create_topics
from orchestration.local.ports import answers, free_port
from orchestration.settings import PROJECT_ROOT
from tickhouse.contract.topology import JOBS, TOPICS

pytestmark = [pytest.mark.integration, pytest.mark.whole_machine]
WAIT_SECONDS = 60.0
STREAM = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text("asked"), sys.exit(0)))
pathlib.Path(sys.argv[1]).write_text("running")
signal.pause()
"""
SERVER = """
import os
import sys
from pathlib import Path
from orchestration.container.code_server import serve
from orchestration.settings import OrchestrationSettings
from orchestration.supervision.streams import Streams
sys.exit(serve(sys.argv[1:], Streams(OrchestrationSettings.read()), os.environ))
"""


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def running(home: Path, *words: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the given home and settings, gone at the end whatever happens."""
    dagster = home / "dagster"
    dagster.mkdir(parents=True, exist_ok=True)
    (dagster / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    variables = os.environ | {"TICKHOUSE_HOME": str(home), "DAGSTER_HOME": str(dagster)}
    variables |= {f"TICKHOUSE_{name}": value for name, value in settings.items()}
    child = subprocess.Popen(
        [sys.executable, *words], env=variables, cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def start_stand_ins(home: Path) -> list[Path]:
    """Processes in the place of the streams; returns the files in which they note what befalls them."""
    notes = []
    for name in JOBS:
        notes.append(home / f"{name}.note")
        processes.set_wanted(home, name, "running")
        processes.start(home, name, [sys.executable, "-c", STREAM, str(notes[-1])], os.environ)
    eventually(lambda: all(note.exists() and note.read_text() == "running" for note in notes))
    return notes


def gone(home: Path, name: str) -> bool:
    """Whether a stream's process has ended."""
    process = processes.recorded(home, name)
    return process is not None and not processes.alive(process)


def test_the_end_of_the_code_servers_container_is_the_streams_end_and_they_stay_wanted(home: Path) -> None:
    port = free_port()
    with running(home, "-m", "orchestration.container.code_server", str(port)) as container:
        eventually(lambda: answers(port) or container.poll() is not None)
        notes = start_stand_ins(home)
        container.send_signal(signal.SIGTERM)
        assert container.wait(WAIT_SECONDS) == 0
    assert not answers(port)
    assert [note.read_text() for note in notes] == ["asked"] * len(JOBS)
    assert all(gone(home, name) and processes.get_wanted(home, name) == "running" for name in JOBS)


@pytest.mark.parametrize(("ends_with", "told"), [(3, 3), (0, 1)])
def test_a_code_server_that_ends_by_itself_is_a_failure_and_streams_end_too(
    home: Path, ends_with: int, told: int
) -> None:
    notes = start_stand_ins(home)
    with running(home, "-c", SERVER, sys.executable, "-c", f"raise SystemExit({ends_with})") as container:
        assert container.wait(WAIT_SECONDS) == told
    assert [note.read_text() for note in notes] == ["asked"] * len(JOBS)


def test_a_code_server_that_does_not_stop_is_killed(home: Path) -> None:
    deaf = "import pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "pathlib.Path(sys.argv[1]).touch(); [signal.pause() for _ in iter(int, 1)]"
    ready = home / "deaf"
    impatient = SERVER.replace(
        "sys.exit(serve",
        "import orchestration.container.code_server as module\nmodule.STOP_SECONDS = 1\nsys.exit(serve",
    )
    with running(home, "-c", impatient, sys.executable, "-c", deaf, str(ready)) as container:
        eventually(ready.exists)
        container.send_signal(signal.SIGTERM)
        assert container.wait(WAIT_SECONDS) == 0


def test_the_producers_container_takes_prices_from_a_simulated_exchange_of_its_own(home: Path, broker: str) -> None:
    create_topics(broker, TOPICS)
    settings = {"SOURCE": "simulator", "SYMBOLS": "BTCUSDT,ETHUSDT", "KAFKA_BOOTSTRAP": broker, "STEP_MS": "20"}
    with running(home, "-m", "orchestration.container.producer", **settings) as container:
        eventually(lambda: (processes.read_heartbeat(home, "producer") or {}).get("acknowledged", 0) >= 20)
        container.send_signal(signal.SIGTERM)
        assert container.wait(WAIT_SECONDS) == 0
    heartbeat = processes.read_heartbeat(home, "producer")
    assert heartbeat is not None
    assert heartbeat["state"] == "stopped"
    assert heartbeat["sent"] == heartbeat["acknowledged"]


def test_the_producers_container_becomes_the_producer_for_other_sources(home: Path, broker: str) -> None:
    create_topics(broker, TOPICS)
    recording = home / "recording.jsonl"
    recording.write_text('{"symbol":"BTCUSDT","price":1.5,"timestamp":"2025-05-08T04:12:38.300000+00:00"}\n')
    settings = {"SOURCE": f"replay:{recording}", "SPEED": "max", "KAFKA_BOOTSTRAP": broker}
    with running(home, "-m", "orchestration.container.producer", **settings) as container:
        assert container.wait(WAIT_SECONDS) == 0
    heartbeat = processes.read_heartbeat(home, "producer")
    assert heartbeat is not None
    assert (heartbeat["state"], heartbeat["acknowledged"], heartbeat["pid"]) == ("ended", 1, container.pid)


@pytest.mark.parametrize(
    ("source", "sentence"), [("auto", "set it to binance, simulator or replay:FILE"), ("nonsense", "TICKHOUSE_SOURCE")]
)
def test_a_source_without_meaning_in_a_container_is_told(home: Path, source: str, sentence: str) -> None:
    with running(home, "-m", "orchestration.container.producer", SOURCE=source) as container:
        _, errors = container.communicate(timeout=WAIT_SECONDS)
    assert container.returncode == 2
    assert sentence in errors
    assert "Traceback" not in errors
