"""The status when parts are down, damaged or were never started: told in sentences, quickly, without a traceback."""

from __future__ import annotations

import datetime
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from orchestration.cli.status_view import render
from orchestration.local import processes
from orchestration.monitoring.status import Status, collect, producer_state
from orchestration.serving.mongo import COLLECTIONS
from orchestration.settings import Endpoints, OrchestrationSettings, write_endpoints
from tickhouse import files
from tickhouse.contract.topology import JOBS

NOWHERE = "127.0.0.1:1"


def settings(home: Path) -> OrchestrationSettings:
    return OrchestrationSettings(
        home=home,
        kafka_bootstrap=NOWHERE,
        mongo_uri=f"mongodb://anna:secret@{NOWHERE}/",  # pragma: allowlist secret
        lakehouse=str(home / "lakehouse"),
    )


def shown(status: Status) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(status))
    return console.export_text()


def record(home: Path, name: str, pid: int, created: float) -> None:
    content = {"name": name, "pid": pid, "create_time": created, "command": ["x"], "log": str(home / f"{name}.log")}
    files.write_json(processes.run_folder(home) / f"{name}.json", content)


def heartbeat(home: Path, name: str, **content: Any) -> None:
    files.write_json(processes.run_folder(home) / f"{name}.heartbeat.json", content)


def test_with_everything_down_it_says_so_quickly(tmp_path: Path) -> None:
    began = time.monotonic()
    status = collect(settings(tmp_path / "never"))
    assert time.monotonic() - began < 2.5
    assert [problem.split(" ", maxsplit=1)[0] for problem in status.problems] == ["Kafka", "MongoDB"]
    assert not status.drained
    assert status.problems == status.not_at_work[-2:]
    assert {(one.documents, one.delta_version) for one in status.load.values()} == {(None, None)}
    assert shown(status).count("unknown") == len(COLLECTIONS)
    assert not (tmp_path / "never").exists(), "a look leaves nothing behind"
    assert "secret" not in status.model_dump_json() + shown(status)
    assert {stream.state for stream in status.streams.values()} == {"stopped"}
    assert "nothing was started in this home" in shown(status)


def test_a_killed_stream_and_one_given_up_are_told(tmp_path: Path) -> None:
    record(tmp_path, "moving", 999_999_999, 1.0)
    heartbeat(tmp_path, "moving", pid=999_999_999, state="running", written_at="2026-01-01T00:00:00Z", input_rows=5)
    record(tmp_path, "trend", 999_999_998, 1.0)
    heartbeat(tmp_path, "trend", pid=999_999_998, state="failed", error="no space", written_at="2026-01-01T00:00:00Z")
    files.write_json(tmp_path / "run" / "streams.supervision.json", {"trend": "down again after 8 attempts: no space"})
    status = collect(settings(tmp_path))
    assert (status.streams["moving"].state, status.streams["moving"].input_rows) == ("crashed", 5)
    assert status.streams["trend"].state == "given_up"
    assert "down again after 8 attempts" in shown(status)


def test_a_service_that_does_not_answer_and_a_dead_producer_are_told(tmp_path: Path) -> None:
    # Only init is old enough not to be starting.
    record(tmp_path, "kafka", 1, psutil.Process(1).create_time())
    record(tmp_path, "producer", 999_999_999, 1.0)
    heartbeat(
        tmp_path,
        "producer",
        source="binance",
        state="running",
        pid=1,
        acknowledged=3,
        written_at="2026-01-01T00:00:00Z",
    )
    with child() as pid:
        record(tmp_path, "mongod", pid, psutil.Process(pid).create_time())
        status = collect(settings(tmp_path))
    assert (status.services["kafka"].state, status.services["kafka"].pid) == ("hung", 1)
    assert any("kafka runs, as process 1, and does not answer" in each for each in status.problems)
    assert status.services["mongod"].state == "starting"
    assert (status.producer.state, status.producer.acknowledged) == ("crashed", 3)
    assert "moving" not in status.services


def test_a_damaged_table_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "lakehouse" / "zscores" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("nonsense\n")
    assert any("zscores" in problem for problem in collect(settings(tmp_path)).problems)


@contextmanager
def child(*, asleep: bool = False) -> Iterator[int]:
    """A process, suspended if it is to be."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        if asleep:
            process.send_signal(signal.SIGSTOP)
            while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def now_text() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


def test_whatever_is_suspended_is_not_running(tmp_path: Path) -> None:
    with child(asleep=True) as pid:
        created = psutil.Process(pid).create_time()
        for name in ("daemon", "moving", "producer"):
            record(tmp_path, name, pid, created)
            heartbeat(tmp_path, name, pid=pid, state="running", written_at=now_text())
        status = collect(settings(tmp_path))
    assert status.services["daemon"].state == status.streams["moving"].state == status.producer.state == "suspended"


NOW = 1_000_000.0


def said(state: str, pid: int = 7, age: float = 0) -> dict[str, Any]:
    moment = datetime.datetime.fromtimestamp(NOW - age, datetime.UTC)
    return {"state": state, "pid": pid, "written_at": moment.isoformat().replace("+00:00", "Z")}


@pytest.mark.parametrize(
    ("heartbeat", "age", "alive", "asleep", "state"),
    [
        (said("running"), 99, True, False, "running"),
        (said("waiting"), 99, True, False, "waiting"),
        (said("running", age=31), 99, True, False, "hung"),
        (said("waiting", age=31), 99, True, False, "hung"),
        (said("running"), 99, True, True, "suspended"),
        (said("ended", pid=6), 5, True, False, "starting"),  # an earlier process said so
        (said("ended", pid=6), 99, True, False, "hung"),
        ({}, 5, True, False, "starting"),
        ({}, 99, True, False, "hung"),
        # Said, or begun, before the clock was set back.
        (said("running", age=-999), 99, True, False, "hung"),
        (said("running", age=-999), -999, True, False, "hung"),
        (said("running", age=31), -999, True, False, "hung"),
        (said("running"), -999, True, False, "running"),
        (said("running", age=-999), None, False, False, "crashed"),
        (said("running"), 99, False, False, "crashed"),
        (said("running", age=31), 99, False, False, "crashed"),
        (said("running", pid=6), 99, False, False, "crashed"),
        (said("ended"), 99, False, False, "ended"),
        (said("failed"), 99, False, False, "failed"),
        ({}, 99, False, False, "stopped"),
        # One without a record: another service manager's.
        (said("running"), None, False, False, "running"),
        (said("running", age=31), None, False, False, "crashed"),
        (said("ended", age=31), None, False, False, "ended"),
        ({}, None, False, False, "stopped"),
    ],
)
def test_how_the_producer_is(
    heartbeat: dict[str, Any], age: float | None, alive: bool, asleep: bool, state: str
) -> None:
    process = None if age is None else processes.Process("producer", 7, NOW - age, ["x"], "log")
    assert producer_state(heartbeat, process, alive=alive, suspended=asleep, now=NOW) == state


def test_the_json_form_has_what_scripts_rely_on(tmp_path: Path) -> None:
    content = json.loads(collect(settings(tmp_path)).model_dump_json())
    assert {
        "source", "source_note", "kafka_bootstrap", "mongo_uri", "lakehouse", "dagster_url", "board_url", "streams",
        "load",
        "services", "drained", "not_at_work",
    } <= set(content)  # fmt: skip
    assert {
        "state", "pid", "input_rows", "output_rows", "late", "duplicates", "rejects", "lag", "last_batch_ms",
        "last_event_time",
    } <= set(content["streams"]["moving"])  # fmt: skip
    assert set(content["load"]["btc-price-zscore-30s"]) == {"documents", "delta_version"}


@pytest.mark.parametrize("name", ["moving", "producer"])
def test_a_torn_heartbeat_is_none(tmp_path: Path, name: str) -> None:
    (processes.run_folder(tmp_path) / f"{name}.heartbeat.json").write_text('{"state": "run')
    assert collect(settings(tmp_path)).streams["moving"].input_rows is None


def test_the_table_for_people_fits_into_80_columns(tmp_path: Path) -> None:
    for name in JOBS:
        record(tmp_path, name, os.getpid(), psutil.Process().create_time())
        heartbeat(
            tmp_path, name, pid=os.getpid(), state="starting", input_rows=1_234_567, output_rows=1_234_567, late=1_234,
            duplicates=1_234, rejects=1_234, last_event_time="2026-01-01T12:34:56.700Z", last_batch_ms=1_234,
        )  # fmt: skip
    text = shown(collect(settings(tmp_path)))
    assert "…" not in text
    assert text.count("1,235k") == 2 * len(JOBS)
    assert text.count("12:34:56") == len(JOBS)


def as_up(home: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock of a home as `tickhouse up` does; it prints a line once it does."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom orchestration.local.home_lock import only_instance\n"
        "with only_instance(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(home)], stdout=subprocess.PIPE)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_stack_that_is_starting_has_no_addresses_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    for name in ("KAFKA_BOOTSTRAP", "MONGO_URI"):
        monkeypatch.delenv(f"TICKHOUSE_{name}", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    chosen = Endpoints(
        kafka_bootstrap="127.0.0.1:1",
        mongo_uri="mongodb://127.0.0.1:1/",
        lakehouse=str(home / "lakehouse"),
        checkpoints=str(home / "checkpoints"),
        source="simulator",
        dagster_url="http://127.0.0.1:1",
    )
    if earlier:
        write_endpoints(home, chosen)
        old = time.time() - 3_600
        os.utime(home / "endpoints.json", (old, old))
        heartbeat(home, "producer", source="simulator", state="stopped", acknowledged=3)
    up = as_up(home)
    try:
        assert up.stdout is not None and up.stdout.readline()
        seen = collect(OrchestrationSettings.read(home=home))
        told = json.loads(seen.model_dump_json())
        unknown = ("kafka_bootstrap", "mongo_uri", "dagster_url", "board_url", "source", "source_note")
        assert {name: told[name] for name in unknown} == dict.fromkeys(unknown)
        assert {one["documents"] for one in told["load"].values()} == {None}
        assert {one["lag"] for one in told["streams"].values()} == {None}
        assert (told["up_pid"], told["drained"], told["problems"]) == (up.pid, False, [])
        assert "kafka is not started yet" in told["not_at_work"]
        assert "the stack is starting" in shown(seen)
        # It has chosen: what it says is now its own.
        write_endpoints(home, chosen)
        seen = collect(OrchestrationSettings.read(home=home))
        assert (seen.kafka_bootstrap, seen.source) == ("127.0.0.1:1", "simulator")
    finally:
        up.kill()
        up.wait()


def test_a_home_in_which_nothing_was_ever_started_has_no_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAFKA_BOOTSTRAP", "MONGO_URI"):
        monkeypatch.delenv(f"TICKHOUSE_{name}", raising=False)
    never = collect(OrchestrationSettings.read(home=tmp_path / "never"))
    assert (never.kafka_bootstrap, never.mongo_uri, never.problems) == (None, None, [])
    monkeypatch.setenv("TICKHOUSE_KAFKA_BOOTSTRAP", NOWHERE)
    assert collect(OrchestrationSettings.read(home=tmp_path / "never")).kafka_bootstrap == NOWHERE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'{"written_at": 5, "state": [], "queries": {"moving": {"offsets": 3}}}', None]
)
def test_damaged_files_of_a_home_cost_no_more_than_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr("orchestration.monitoring.status._KAFKA_SECONDS", 0.05)
    monkeypatch.setattr("orchestration.monitoring.status._MONGO_SECONDS", 0.05)
    record(tmp_path, "trend", 999_999_999, 1.0)
    heartbeat(tmp_path, "trend", pid=999_999_999, state="running", written_at=now_text(), input_rows=5)
    folder = processes.run_folder(tmp_path)
    damaged = [
        "kafka.json", "moving.json", "producer.json", "zscore.wanted.json", "prices.heartbeat.json",
        "producer.heartbeat.json", "streams.supervision.json", "supervisor.look.json", "load.look.json",
    ]  # fmt: skip
    for name in damaged:
        if content is None:
            (folder / name).mkdir()  # as unreadable as a file of somebody else's
        else:
            (folder / name).write_bytes(content)
    status = collect(settings(tmp_path))
    assert (status.streams["trend"].state, status.streams["trend"].input_rows) == ("crashed", 5)
    unknown = {name for name, stream in status.streams.items() if stream.state == "unknown"}
    assert {"moving", "zscore"} <= unknown <= {"moving", "zscore", "prices"}
    assert (status.services["kafka"].state, status.producer.state) == ("unknown", "unknown")
    for name in ("kafka.json", "moving.json", "producer.json", "zscore.wanted.json"):
        assert any(str(folder / name) in problem for problem in status.problems), name
    assert shown(status)
