"""The status when parts are down, damaged or were never started: told in sentences, quickly, without a traceback."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from orchestration import processes
from orchestration.mongo_load import COLLECTIONS
from orchestration.settings import OrchestrationSettings
from orchestration.status import Status, collect
from orchestration.status_view import render
from spark_jobs.jobs import JOBS

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
    processes.write_json(processes.run_folder(home) / f"{name}.json", content)


def heartbeat(home: Path, name: str, **content: Any) -> None:
    processes.write_json(processes.run_folder(home) / f"{name}.heartbeat.json", content)


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
    processes.write_json(
        tmp_path / "run" / "streams.supervision.json", {"trend": "down again after 8 attempts: no space"}
    )
    status = collect(settings(tmp_path))
    assert (status.streams["moving"].state, status.streams["moving"].input_rows) == ("crashed", 5)
    assert status.streams["trend"].state == "given_up"
    assert "down again after 8 attempts" in shown(status)


def test_a_running_service_and_a_dead_producer_are_told(tmp_path: Path) -> None:
    record(tmp_path, "kafka", os.getpid(), psutil.Process().create_time())
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
    status = collect(settings(tmp_path))
    assert (status.services["kafka"].state, status.services["kafka"].pid) == ("running", os.getpid())
    assert (status.producer.state, status.producer.acknowledged) == ("crashed", 3)
    assert "moving" not in status.services


def test_a_damaged_table_is_a_problem_not_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "lakehouse" / "zscores" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("nonsense\n")
    assert any("zscores" in problem for problem in collect(settings(tmp_path)).problems)


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
